"""Operations of a stream, by number: what workloads write and both drivers read."""

ALLOC = 0
FREE = 1
WORK = 2  # in the engine's form of a stream only: a recorded interrupt uses the CPU for `size` ns
# Without a clock only (kmemexp.workload.stability):
WATCH = 3  # before a free: watch number `size` begins, of the object in the slot
READ = 4  # a reference to the freed object of watch number `slot` is read through; `size`: CHECKS, LAST

# What a read says about itself, bits.
CHECKS = 1  # the reader compares a generation count
LAST = 2  # the last read of its watch
