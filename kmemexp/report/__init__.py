"""Results as frames: statistics, comparison, tables, charts, the catalogue of designs.

May import plan, store, parts, and names of sim.
"""
