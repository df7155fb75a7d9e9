"""Allocators and arenas by name: finding, contract, lock specs, parts from outside.

May import sim (names only).
"""
