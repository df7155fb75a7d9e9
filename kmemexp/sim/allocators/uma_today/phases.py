"""regs.PHASE of `allocators/uma_today`: which bits hold what, which phases there are, and which follows which.

    regs.PHASE     bits 0-5    phase
                bits 6-11   RETURN: phase to go on in when a slab has been made
                bits 12-17  THEN: phase to go on in when a bucket has been put away, or a stack filled
                bits 18-23  STACK: bucket zone of the stack that is filled or flushed
                bit 24      GIVING_UP: an allocation frees the chain that it could not complete
                bit 25      SMALL: there was no cluster of a page, so the rest of the chain is of plain ones
                bit 26      NESTED: clusters are allocated for packets that have just come from the keg
    regs.X         off-page header on its way to its slab; NIL: none; REFUSED: the map has refused a slab
    regs.Y         bucket that is filled or put away
    regs.BASE      bucket that is emptied
    regs.TARGET    how often the zone-domain lock had been taken when it was asked for; from RELEASE or FREE_ITEM to
                UNSTACK: the bucket that is emptied, or NIL
    regs.GRANTED   of a free: the next cluster of the chain + 1; with NESTED what waits for clusters (`packets`)

What follows each phase. `X > Y`: a detour that begins in X and goes on in Y. `grow` is HEADER or, without an off-page
header, SLAB; `empty` is RELEASE, of packets FINI or, for an empty bucket, DISPOSE. `end`: the operation ends.
NESTED phases are those of an allocation; what ends it is LOAD, or UNINIT instead of failing.

    BEGIN         alloc: as PIECES, or LARGE. free: as FREE_PIECES, or LARGE
    PIECES        end; FLUSH > MISS; as MISS
    MISS          FETCH; as TAKE
    FETCH         LOAD; TAKE
    TAKE          IMPORT; REFILL > TAKE; as ONE
    IMPORT        grow > IMPORT; LOAD; DISPOSE > ONE; PIECES (NESTED)
    ONE           SINGLE; SLEPT; end; FREE_PIECES (giving up); PIECES (SMALL)
    SLEPT         as TAKE
    SINGLE        grow > SINGLE; end; PIECES; FREE_PIECES (giving up); PIECES (SMALL); PIECES (NESTED); LOAD
    UNINIT        LOAD; DISPOSE > ONE; end
    LOAD          PUT_BACK; as PIECES
    PUT_BACK      PIECES; empty > PIECES
    REFILL        grow > REFILL; what THEN says
    HEADER        HEADER_PAGE; SLAB
    HEADER_PAGE   SLAB; refused: RETURN
    SLAB          RETURN, in the same step; refused, with a header in hand: UNHEADER
    UNHEADER      RETURN
    RELEASE       RELEASE of another domain's items; UNSTACK; DISPOSE
    UNSTACK       UNSTACK, the next one; DISPOSE; end
    DISPOSE       what THEN says; FLUSH
    FLUSH         FLUSH of another domain's buckets; what THEN says
    FINI          FINI_ITEM; RELEASE
    FINI_ITEM     FINI
    DRAIN         DRAIN_LIST; as FREE_PIECES
    DRAIN_LIST    empty > DRAIN; DRAIN
    FREE_PIECES   end; PUT; SORT; FREE_ITEM; FINI_ONE; REFILL > RELOAD
    FINI_ONE      FREE_ITEM
    PUT           RELOAD; empty > RELOAD
    RELOAD        as FREE_PIECES
    FREE_ITEM     end; FREE_PIECES; UNSTACK
    SORT          REFILL > SORT; SORTED
    SORTED        PUT_SORTED; empty > RELOAD
    PUT_SORTED    SORTED; empty > SORTED
    LARGE         end

Those of the upkeep:

    BEGIN         as ZONE
    ZONE          TRIM; CROSS_BUCKET; KEG; after the last zone CPUS or end
    CROSS_BUCKET  ZONE; empty > ZONE
    TRIM          empty > MORE; KEG; as ZONE, for the next one
    MORE          NEXT_BUCKET
    NEXT_BUCKET   as TRIM
    KEG           FREE_HEADER; UNMAP; as ZONE, for the next one
    FREE_HEADER   UNMAP
    UNMAP         as KEG
    CPUS          empty > CPUS; as STACKS
    STACKS        STACKS of the next CPU or zone; as ZONE, for a second pass
"""

from kmemexp.jit import kernel
from kmemexp.sim.allocators._shared.packed_phase import FIELD_BITS

# Phases of allocations and frees, with their locks: c the critical section, l zone-domain, k keg-domain, x cross.
BEGIN = 0  # c
PIECES = 1  # c: take what is asked for from the CPU's buckets
MISS = 2  # c: these are empty
FETCH = 3  # l: take a full bucket
TAKE = 4  # c: take an empty one, to fill it
IMPORT = 5  # k: fill it
SINGLE = 6  # k: no bucket is to be had: one item from a slab
ONE = 7  # c: the way there
LOAD = 8  # c: give the bucket to the CPU
PUT_BACK = 9  # l: it has got one meanwhile
REFILL = 10  # k of a bucket zone: fill a CPU's stack of empty buckets
HEADER = 11  # k of a header zone: take an off-page header
HEADER_PAGE = 12  # the same after the map has given a page for it
SLAB = 13  # k: the map has given a slab
UNHEADER = 14  # k of a header zone: the map has not
RELEASE = 15  # k: give a bucket's items to their slabs
DISPOSE = 16  # c: put the empty bucket on the CPU's stack
FLUSH = 17  # k of a bucket zone: the stack is too high
UNSTACK = 18  # c: unmap a kernel stack that has come back
FREE_PIECES = 19  # c: put what is freed into the CPU's buckets
PUT = 20  # l: put a full bucket on the list
RELOAD = 21  # c: give the CPU an empty bucket
FREE_ITEM = 22  # k: no bucket is to be had
SORT = 23  # x: sort a cross bucket by domain
SORTED = 24  # c
PUT_SORTED = 25  # l: put what has become full on the list
LARGE = 26  # the map has answered for a large malloc
SLEPT = 27  # c: somebody has freed an item of a zone at its limit
FINI = 28  # c: free the clusters of a bucket's packets
FINI_ITEM = 29  # k of clusters: the CPU's buckets are full
FINI_ONE = 30  # k of clusters: the same of the packet that is freed
UNINIT = 31  # k of mbufs: give those back for which there was no cluster
DRAIN = 44  # c: empty the lists of packets, as somebody sleeps for a cluster
DRAIN_LIST = 45  # l

# Phases of the upkeep, with their locks.
ZONE = 32  # begin with the next zone and domain
CROSS_BUCKET = 33  # x: empty the bucket that cross-domain frees are sorted into
TRIM = 34  # l: update the estimate, say what the list may keep
MORE = 35  # c
NEXT_BUCKET = 36  # l: take a bucket from the list
KEG = 37  # k: take the free slabs
UNMAP = 38  # give the next one's pages back
FREE_HEADER = 39  # k of a header zone: give its header back first
CPUS = 40  # c: empty the CPUs' buckets
STACKS = 41  # k of a bucket zone: empty the CPUs' stacks

# Fields of regs.PHASE above the phase, and a flag.
RETURN_SHIFT = FIELD_BITS
THEN_SHIFT = 2 * FIELD_BITS
STACK_SHIFT = 3 * FIELD_BITS
GIVING_UP = 1 << 24
SMALL = 1 << 25
NESTED = 1 << 26

REFUSED = -2  # in regs.X


@kernel
def puts_away(phase: int) -> bool:
    """Whether a phase is of the way that a bucket goes as it is emptied."""
    return (phase >= RELEASE and phase <= UNSTACK) or phase == FINI or phase == FINI_ITEM
