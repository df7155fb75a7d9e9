"""Recorded kernel allocation traces: record, import, count, and turn into a workload's stream.

The way of a line: `source` opens a file of any kind (`recognise` names what is none), `text` reads its lines (`head`
what stands before the event, `fields` the rest), `track` finds which free belongs to which allocation, `naming` which
cache it was, `reading` gives the rows of text and of Parquet alike. `importer` writes them to Parquet with what
`kmemexp.workload.lives` infers, `stats` counts them, `choosing` and `playing` make of them what a simulation plays.
`library` finds a trace by name and keeps what was read. `record` and `capturing` make recordings.
"""
