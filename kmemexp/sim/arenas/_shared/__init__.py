"""What several arenas share.

May import leaves of sim.
"""
