"""Columns of a message between CPUs."""

NEXT = 0
AT = 1  # when it arrives
SERVER = 2
ITEM = 3
ADDR = 4
SIZE = 5
FLAGS = 6
PHASE = 7
SENDER = 8  # its CPU
COLUMNS = 9
