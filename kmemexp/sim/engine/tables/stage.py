"""Stages: what an operation does when its context is next advanced (loop, stages)."""

START = 0  # the handler begins
NEXT = 1  # fetch the next operation, or item of the program
BEGIN = 2  # take the big lock
LOCK = 3  # take the lock of the next step
STEP = 4  # the lock has been granted: let the allocator work
STEPPED = 5  # the step's time is over
MAP_LOCK = 6  # take the map's lock
MAP = 7  # the map's lock has been granted: work on it
PAGES = 8  # the same, but only pages are wanted any more
MAPPED = 9  # the map step's time is over
DONE = 10  # the operation has ended
AGAIN = 11  # take again what was dropped while asleep
TOKEN = 12
RELOCK = 13  # take the map's lock again after waiting for memory
RETRY = 64  # added to what it goes on with once it has its lock: it looks at the lock again before
