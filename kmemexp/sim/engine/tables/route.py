"""Routes: for each server, the locks of its steps."""

PER = 0  # which lock of class 0 a first step takes: PER_*
HOME = 1  # lock of the map that it grows in
LOCK = 2  # route.LOCK + class: first lock of each class
CALL = 10  # route.CALL + regs.CALL: its map calls
UNLOCKED = 18  # bytes from which on a malloc takes no lock but those that its steps name
COLUMNS = 19
PER_ONE, PER_CPU, PER_ITEM = 0, 1, 2
