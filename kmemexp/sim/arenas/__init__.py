"""Arenas: what manages the address ranges of maps. A file or a folder each; what several share is in `_shared/`.

May import leaves of sim, and one another; the sizes of an allocator from which one takes its tags.
"""
