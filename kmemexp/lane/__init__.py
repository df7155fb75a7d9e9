"""Simulating a replica: the two ways to run it, sampling, what it measures, witness.

May import boot, parts, workload, sim.
"""

from kmemexp.lane.compiling import warm
from kmemexp.lane.simulate import simulate_lanes

# Results folders and runners name `kmemexp.lane:simulate_lanes`; a driver compiles ahead by the `warm` beside it.
__all__ = ["simulate_lanes", "warm"]
