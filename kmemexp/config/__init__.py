"""The configuration: schema for Hydra, checks, a cell and its key.

May import parts, workload, the words of boot, and sizes of sim.
"""
