"""State.task of `allocators/illumos_kmem`: the variables of kmem_taskq, the one thread that does all upkeep."""

# Places of State.task.
T_LOCK = 0  # lock under which to go on after a call
T_WANTED = 1  # T_WANTED + TEND_TICK, T_WANTED + TEND_REAP: that is to be done
T_BUSY = 3
T_WAIT = 4  # ticks until another reap is allowed
T_KIND = 5
T_K = 6  # cache
T_CPU = 7
T_MAG = 8  # magazine that is being destroyed, and its rounds
T_ROUNDS = 9
T_AT = 10  # rounds that have been freed
T_MAG2 = 11  # the CPU's previous one
T_ROUNDS2 = 12
T_THEN = 13  # phase after that magazine
T_LEFT = 14  # magazines that are still to be reaped
T_AFTER = 15  # phase after the reap
T_DESPERATE = 16
T_SLAB = 17  # slab that is being scanned
T_SCANNED = 18
T_SLABS = 19  # reclaimable ones among them
T_INDEX = 20  # next buffer of the slab
T_SEEN = 21  # allocated ones before it
T_REFCNT = 22  # of the slab when its lock was given up
T_NOMOVE = 23
T_FAILED = 24
T_HEAD = 25  # first and last kmem_move_t of the pending moves
T_TAIL = 26
T_MOVE = 27  # the one that ends
T_COLUMNS = 28
