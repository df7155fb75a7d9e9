"""Items of a program: what it does, one after the other."""

from kmemexp.sim.engine.programs import ITEMS

(
    END,
    WORK,  # use the CPU: law, mean ns, shape
    SLEEP,  # do without it: law, mean ns, shape
    LOCK,  # lock, 1: one for each CPU
    UNLOCK,
    ALLOC,  # kind, bytes, flag.* flags, queue
    FREE,  # queue, flag.* flags: its oldest object
    RAISE,  # source: its context on this CPU
    AWAIT,  # source: the next completion of its first handler
    IO,  # source, ns: its first handler is called after that time; sleep until it has finished
    TAKE,  # pages for user processes
    GIVE,
    REST,  # the page daemon waits for work
    RECLAIM,  # it frees a cluster
    TEND,  # server, T_*: upkeep of an allocator
    WATCH,  # go on only if the largest run was found too small
) = range(len(ITEMS))
COLUMNS = 6
