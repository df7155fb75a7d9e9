"""The simulated machine: arrays and numbers only. Drivers, the engine with a clock, allocators, arenas.

May import NumPy, Numba and `kmemexp.jit`; the files beside this one know no allocator, no arena and no engine.
"""
