"""What several allocators share.

May import leaves of sim.
"""
