"""Routes: for each server, the locks of its steps."""

PER = 0  # which lock of class 0 a first step takes: PER_*
KEEPS = 1  # 1: it keeps its spl mask or critical section during map steps
HOME = 2  # lock of the map that it grows in
LOCK = 3  # route.LOCK + class: first lock of each class
COLUMNS = 11
PER_ONE, PER_CPU, PER_ITEM = 0, 1, 2
