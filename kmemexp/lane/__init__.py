"""Simulating a replica: the two ways to run it, sampling, what it measures, witness.

May import boot, parts, workload, sim.
"""

from kmemexp.lane.simulate import simulate_lanes

__all__ = ["simulate_lanes"]  # results folders and runners name `kmemexp.lane:simulate_lanes`
