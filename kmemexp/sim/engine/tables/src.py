"""Columns of a source of interrupts."""

LAW = 0  # of its arrivals
MEAN = 1  # ns between them
BURST = 2  # BURSTY: mean length of a burst
GAP = 3  # BURSTY: ns between the arrivals of a burst
PHASE = 4  # PERIODIC: ns before the first arrival; -1: drawn
FIRST = 5  # first of its contexts
CONTEXTS = 6
SPREAD = 7  # 1: one train of arrivals, dealt out to the contexts in turn
WAITERS = 8  # first of the contexts that wait for its next completion
HIST = 9  # histogram of raise → start; the next row is raise → done
DEVICE = 10  # 1: delivered on the CPU that has the big lock (FreeBSD 4 with several CPUs)
NUMBER = 11
DEALT = 12  # arrivals dealt out
COLUMNS = 13
