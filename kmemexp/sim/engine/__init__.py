"""The machine with a clock: CPUs, contexts, locks, interrupts, and the loop that drives them.

May import leaves of sim, NumPy, Numba.
"""
