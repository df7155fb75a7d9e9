"""Object allocators: a file or a folder each, found by name; what several share is in `_shared/`.

May import leaves of sim, and one another.
"""
