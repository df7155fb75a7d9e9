"""Random numbers: one generator per cause and replica, so that every design meets the same load.

A lane's numbers depend on the seed, the cause and the replica alone: never on the design, the machine or the other
replicas of its batch (common random numbers).
"""

import numpy as np

# Causes. The numbers are part of every stored result: never change or reuse one.
ARRIVALS = 0
SIZES = 1
LIFETIMES = 2
CPUS = 3  # CPU of the allocation, and of the free where that is another one
CONTEXTS = 4  # soft interrupt or not, may sleep or not
SHIFTS = 5  # starting times of a trace's copies
PAUSES = 6  # before the operations of a closed load
REFERENCES = 7  # to freed objects, and when they are read
GUESSES = 8  # deaths in a recording that left no event: which, and when
OLD_PAGES = 9  # user memory and page cache that are there when the load begins
PINNED = 10  # objects that no shrinker may free
BUNDLES = 11  # objects that are born and die together


def generator(seed: int, cause: int, replica: int) -> np.random.Generator:
    """Make the generator of one cause in one replica."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(cause, replica))))
