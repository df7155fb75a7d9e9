"""Programs of interrupt handlers and tasks: their items, and the laws of what is drawn. Plain numbers, no Numba."""

# Laws of arrivals.
ARRIVALS = ("none", "periodic", "poisson", "bursty")
NONE, PERIODIC, POISSON, BURSTY = range(len(ARRIVALS))

# Laws of durations: of mean m, with a shape where the law has one.
LAWS = ("fixed", "exponential", "uniform", "erlang", "hyperexponential", "two_point")
FIXED, EXPONENTIAL, UNIFORM, ERLANG, HYPEREXPONENTIAL, TWO_POINT = range(len(LAWS))

# Items of a program, and their operands.
ITEMS = (
    "end", "work", "sleep", "lock", "unlock", "alloc", "free", "raise", "await", "io", "take", "give", "rest",
    "reclaim", "tend", "watch",
)  # fmt: skip

# Columns of an item: its code, its operands in the order given above, and the place of its program's end.
PC_CODE, PC_1, PC_2, PC_3, PC_4, PC_END = range(6)

# Columns of a queue of objects, one for each queue and CPU: number of the first of Q_ROWS, objects, their rows.
Q_FIRST, Q_LENGTH, Q_ROWS = range(3)
