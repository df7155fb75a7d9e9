"""Columns of a map: its locks, as places of the machine's memory."""

LOCK = 0
OBJECT = 1  # lock of the object that its pages belong to
CPU = 2  # first of its locks of single CPUs
LAZY = 3  # 1: its arena says when TLBs are flushed (map_flushes)
COLUMNS = 4
