"""Tables of the machine with a clock: what the places of its memory mean. Read as namespaces: `m[x + ctx.STATE]`.

May import NumPy and other tables.
"""
