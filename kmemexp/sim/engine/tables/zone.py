"""Columns of a zone of the direct map that has a lock of its own."""

FIRST = 0  # its first address
END = 1  # the one after its last
LOCK = 2  # place of its lock
COLUMNS = 3
