"""Columns of the table of objects (int64[rows, COLUMNS]), one row for each object; half a cache line."""

ADDR = 0  # address, or ABSENT
SIZE = 1  # bytes requested
GRANTED = 2  # bytes granted
KIND = 3
COLUMNS = 4  # a row is half a cache line
ABSENT = -1
PENDING = -2  # timed engine: its allocation has not ended
WANTED = -3  # the same, and a free of it waits
