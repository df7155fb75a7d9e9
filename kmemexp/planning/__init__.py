"""From overrides and sweep files to a table of cells.

May import config, parts, workload; lane by name only.
"""
