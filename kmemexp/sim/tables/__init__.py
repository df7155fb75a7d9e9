"""Tables of the drivers: what the columns of shared arrays mean. Read as namespaces: `reg[i, regs.SIZE]`.

May import NumPy and other tables.
"""
