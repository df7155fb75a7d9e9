"""Recorded kernel allocation traces: record, import, count, and turn into a workload's stream.

The way of a line: `source` opens a file of any kind, `text` reads its lines, `track` finds which free belongs to which
allocation, `reading` gives the rows of text and of Parquet alike. `importer` writes them to Parquet, `stats` counts
them, `playing` makes of them what a simulation plays. `library` finds a trace by name and keeps what was read.
"""
