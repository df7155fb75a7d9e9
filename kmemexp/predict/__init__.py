"""What a real kernel held, and what is predicted from its recording: SLUB as the sweeps simulate it, cache by cache.

May import planning (the design's parts), boot, workload and sim.
"""
