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
(
    I_END,
    I_WORK,  # use the CPU: law, mean ns, shape
    I_SLEEP,  # do without it: law, mean ns, shape
    I_LOCK,  # lock, 1: one for each CPU
    I_UNLOCK,
    I_ALLOC,  # kind, bytes, F_* flags, queue
    I_FREE,  # queue, F_* flags: its oldest object
    I_RAISE,  # source: its context on this CPU
    I_AWAIT,  # source: the next completion of its first handler
    I_IO,  # source, ns: its first handler is called after that time; sleep until it has finished
    I_TAKE,  # pages for user processes
    I_GIVE,
    I_REST,  # the page daemon waits for work
    I_RECLAIM,  # it frees a cluster
    I_TEND,  # server, T_*: upkeep of an allocator
    I_WATCH,  # go on only if the largest run was found too small
) = range(len(ITEMS))

# Columns of an item: its code, its operands in the order given above, and the place of its program's end.
PC_CODE, PC_1, PC_2, PC_3, PC_4, PC_END = range(6)
I_COLUMNS = 6

# Columns of a queue of objects, one for each queue and CPU: number of the first of Q_ROWS, objects, their rows.
Q_FIRST, Q_LENGTH, Q_ROWS = range(3)
