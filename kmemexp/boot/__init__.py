"""From a cell's dict to a machine that has booted: design, machine, wiring, sources, programs.

May import parts, workload, sim.
"""
