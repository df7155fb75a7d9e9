"""From a cell's dict to a machine that has booted: first without a clock (`machine`), then with one (`timed`).

May import parts, workload, sim.
"""
