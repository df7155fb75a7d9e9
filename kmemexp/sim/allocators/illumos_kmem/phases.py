"""regs.PHASE of `allocators/illumos_kmem`: which bits hold what, which phases there are, and which follows which.

An operation is a stack of calls of kmem by kmem (`calls`); its registers:

    regs.PHASE     bits 0-5    phase of the innermost call (PHASE_MASK)
                bits 6-     frames on the stack, 0 to 3 (DEPTH_SHIFT)
    regs.X, regs.Y,   one frame each, the outermost in regs.X
    regs.TARGET    bits 0-7    phase in which the caller goes on (RETURN_MASK); HANDED_OUT, FREED: the operation ends
                bits 8-23   cache (CACHE_SHIFT, CACHE_MASK)
                bits 24-    buffer or colour + 1; 0: none (BUFFER_SHIFT)
    regs.BASE      result of the last call, or the magazine on its way to the depot, or how often the depot's lock had
                been taken when it was asked for
    regs.GRANTED   page of the hashed slab that is being made or destroyed

What follows each phase. `X > Y` is a call that begins in X, after which its caller goes on in Y; `end`: the call ends.

    BEGIN       end (the fast path); LARGE; A_DEPOT or A_SLAB; F_DEPOT or F_SLAB
    LARGE       end
    A_CPU       end; A_DEPOT; A_SLAB
    A_DEPOT     end; A_SLAB
    A_SLAB      end; A_MAPPED
    A_MAPPED    end; of a hashed cache A_HEADER; A_DEPOT > A_HEADER or A_SLAB > A_HEADER
    A_HEADER    A_DEPOT > A_BUFCTL or A_SLAB > A_BUFCTL; A_ENTER; without memory UNMAKE_MAPPED
    A_BUFCTL    the same; without memory as UNMAKE_BUFCTL
    A_ENTER     end
    F_CPU       end; F_DEPOT; F_SLAB
    F_DEPOT     end; F_SLAB; A_CPU > F_MAGAZINE
    F_MAGAZINE  F_GIVE; F_SLAB
    F_GIVE      as F_DEPOT; with a magazine of another size F_SLAB > F_CPU
    F_SLAB      end; UNMAKE_BUFCTL; UNMAKE_MAPPED
    UNMAKE_BUFCTL    F_DEPOT > UNMAKE_BUFCTL or F_SLAB > UNMAKE_BUFCTL;
                     F_DEPOT > UNMAKE_SLAB or F_SLAB > UNMAKE_SLAB; UNMAKE_MAPPED
    UNMAKE_SLAB      UNMAKE_MAPPED
    UNMAKE_MAPPED    end

Those of the upkeep, which is no call itself; `end` is its own:

    BEGIN           UPDATE at a tick; NEXT for a reap; end, if a task runs already or the reap comes too soon
    UPDATE          UPDATE of the next cache, after the last one NEXT
    NEXT            REAP; PURGE; SCAN; after the last cache what has come meanwhile, UPDATE or NEXT, or end
    PURGE           UNLOAD; PURGE of the next CPU, after the last one REAP
    PURGE_PREVIOUS  the same
    PURGE_NEXT      PURGE of the next CPU, after the last one REAP
    RESIZE          ENABLE
    ENABLE          ENABLE of the next CPU, after the last one SCAN or NEXT
    REAP            UNLOAD; F_CPU > REAP_EMPTY; RESIZE, DEFRAG or NEXT (T_AFTER)
    REAP_FULL       the same
    REAP_EMPTY      F_CPU > REAP_EMPTY; RESIZE, DEFRAG or NEXT (T_AFTER)
    UNLOAD          UNMAKE_BUFCTL > UNLOAD or UNMAKE_MAPPED > UNLOAD;
                    F_CPU > PURGE_PREVIOUS, PURGE_NEXT or REAP_FULL (T_THEN)
    SCAN            A_CPU > QUEUE; MOVES; REAP; NEXT
    DEFRAG          A_CPU > QUEUE; MOVES; NEXT
    QUEUE           F_CPU > CHECK; as CHECK
    CHECK           A_CPU > QUEUE; UNMAKE_BUFCTL > ABORT or UNMAKE_MAPPED > ABORT; MOVES
    ABORT           MOVES
    MOVES           MOVED; DEAD; NEXT
    MOVED           DEAD
    DEAD            UNMAKE_BUFCTL > DEAD or UNMAKE_MAPPED > DEAD; F_CPU > MOVES
"""

# Bits of regs.PHASE and of a frame.
PHASE_MASK = 63
DEPTH_SHIFT = 6
RETURN_MASK = 0xFF
CACHE_SHIFT = 8
CACHE_MASK = 0xFFFF
BUFFER_SHIFT = 24

# Phases, with the lock that each runs under: c cc_lock, d depot_lock, k cache_lock. A: of kmem_cache_alloc(),
# F: of kmem_cache_free(), D: of kmem_slab_destroy().
BEGIN = 0
LARGE = 1  # the map has answered for an oversize block
A_CPU = 2  # c
A_DEPOT = 3  # d: take a full magazine
A_SLAB = 4  # k
A_MAPPED = 5  # k, of a hashed cache c: the map has given a slab
A_HEADER = 6  # c: and here is its kmem_slab_t
A_BUFCTL = 7  # c: here is a bufctl
A_ENTER = 8  # k: the new slab has all
F_CPU = 9  # c
F_DEPOT = 10  # d: take an empty magazine
F_MAGAZINE = 11  # c: here is a new one
F_GIVE = 12  # d: put it into the depot and try again
F_SLAB = 13  # k
UNMAKE_BUFCTL = 14  # c: free the bufctls
UNMAKE_SLAB = 15  # c: the kmem_slab_t is freed
UNMAKE_MAPPED = 16  # the pages are back
HANDED_OUT = 17  # where the caller of kmem_alloc() goes on
FREED = 18
FIRST_TASK = 24  # from here on: phases of the upkeep

# Phases of the upkeep (`upkeep_steps`, from SCAN on `consolidator`): c, d, k as above, n under none.
NEXT = FIRST_TASK + 0  # n: go on with the next cache
UPDATE = FIRST_TASK + 1  # d
PURGE = FIRST_TASK + 2  # c: take a CPU's magazines
PURGE_PREVIOUS = FIRST_TASK + 3  # c: destroy the second one
PURGE_NEXT = FIRST_TASK + 4  # c
RESIZE = FIRST_TASK + 5  # d
ENABLE = FIRST_TASK + 6  # c: allow a CPU to have magazines again
REAP = FIRST_TASK + 7  # d
REAP_FULL = FIRST_TASK + 8  # d
REAP_EMPTY = FIRST_TASK + 9  # d
UNLOAD = FIRST_TASK + 10  # k: free a magazine's rounds
SCAN = FIRST_TASK + 11  # k
DEFRAG = FIRST_TASK + 12  # k
QUEUE = FIRST_TASK + 13  # k: queue its move
CHECK = FIRST_TASK + 14  # k: has the slab changed?
ABORT = FIRST_TASK + 15  # k: it is destroyed
MOVES = FIRST_TASK + 16  # k: carry out the next move
MOVED = FIRST_TASK + 17  # k: the owner has answered
DEAD = FIRST_TASK + 18  # k: destroy a slab that waited for the last move
