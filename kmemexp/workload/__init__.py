"""Streams of operations: synthetic, recorded (`traces/`), stability.

May import constants of sim.
"""
