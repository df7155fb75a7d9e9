"""Stages: what an operation does when its context is next advanced (loop, stages)."""

START = 0  # the handler begins
NEXT = 1  # fetch the next operation, or item of the program
BEGIN = 2  # take the big lock
LOCK = 3  # take the lock of the next step
STEP = 4  # the lock has been granted: let the allocator work
STEPPED = 5  # the step's time is over
CALL = 6  # go on with a map call (word)
MAP = 7  # let the arena work
DONE = 8  # the operation has ended
AGAIN = 9  # take again what was dropped while asleep
TOKEN = 10
RELOCK = 11  # take the locks of a map call again after waiting for memory
ASLEEP = 12  # sleep until somebody frees something
RETRY = 64  # added to what it goes on with once it has its lock: it looks at the lock again before
