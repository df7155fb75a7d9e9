"""`action=validate`: the simulator against theory, worked examples, published figures, another simulator and mutants.

A check (`suite.py` lists them) draws its parameters from the seed, plays the real engine, allocators and arenas, and
gives rows: what was expected, what was measured, and how far the two may be apart (`rows.py`). Generators of textbook
cases live here and not in the tests, which use them too: machines without an allocator (`bench.py`), arenas as the
literature sees them (`placement.py`, `churn.py`, `exhaustive.py`), an allocator by itself (`hand.py`).

May import: predict, report, planning, store, lane, boot, testing, parts, workload, sim.
"""
