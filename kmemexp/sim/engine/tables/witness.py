"""Columns of a witness: a member of a deadlock, as it stood."""

DEADLOCK = 0  # number of the deadlock; waitgraph.STALL
CONTEXT = 1
CPU = 2
STATE = 3
WAIT = 4  # lock, or what else it waits for (contexts)
SINCE = 5  # since when
HELD = 6  # first of the locks that it holds; -1: none
TAKEN = 7  # when that was taken
OP = 8  # operation of the stream; -1: none
STAGE = 9
AT = 10  # time of the deadlock
FOR = 11  # context that it waits for
COLUMNS = 12
