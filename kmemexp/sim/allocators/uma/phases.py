"""regs.PHASE of `allocators/uma`: which bits hold what, which phases there are, and which follows which.

    regs.PHASE     bits 0-5    phase
                bits 6-11   FOR: phase that an item of one of UMA's own zones is wanted in, a bucket or a header
                bits 12-17  BACK: phase to go on in when a slab has been made, or a bucket given back
                bits 18-23  OWN: that zone of UMA's own
                bit 24      REFUSED: no new slab is asked for
                bit 25      FILLING: the operation is counted in Z_FILLS
                bit 26      GIVING_UP: an allocation frees the chain that it could not complete
                bit 27      NESTED: clusters are allocated for packets that have just come from the keg
    regs.X         bucket in hand; NIL: none
    regs.Y         off-page header in hand; NIL: none
    regs.ADDR      of an allocation of several clusters: the last one so far
    regs.GRANTED   of a free: the next cluster of the chain + 1; with NESTED what waits for clusters (`packets`)

What follows each phase. `X > Y`: a detour that begins in X and goes on in Y. `grow` is INTERNAL (FOR SLAB) or, without
an off-page header, SLAB. `end`: the operation ends. NESTED phases are those of an allocation; what ends it is INITED.

    BEGIN           alloc: end (the fast path); MISS; INTERNAL > LARGE. free: end; FREE_MISS; FREE_ITEM; LARGE_UNHEADER
    RETRY           end; MISS; FREE_RETRY (giving up)
    MISS            end; RETRY; FILL; INTERNAL > FILL; SINGLE
    FILL            grow > FILL; RETRY, of packets NESTED; FREE_BUCKET > SINGLE
    SINGLE          grow > SINGLE; end; RETRY, of packets NESTED; FREE_RETRY (giving up)
    INITED          RETRY; FREE_BUCKET > SINGLE; end
    INTERNAL        INTERNAL_PAGE; what FOR says; without a bucket SINGLE or FREE_ITEM, without a header BACK or end
    INTERNAL_PAGE   the same without INTERNAL_PAGE
    SLAB            BACK, in the same step; refused, with a header in hand: UNHEADER
    UNHEADER        BACK
    FREE_BUCKET     BACK
    FREE_RETRY      end; FREE_MISS; FREE_ITEM
    FREE_MISS       end; FREE_RETRY; INTERNAL > ADD_BUCKET; FREE_ITEM
    FINI            FREE_ITEM
    ADD_BUCKET      FREE_RETRY
    FREE_ITEM       end; FREE_RETRY; DROP_HEADER; DROPPED; FINI
    DROP_HEADER     DROPPED
    DROPPED         end; FREE_RETRY
    LARGE           end; LARGE_UNHEADER
    LARGE_UNHEADER  end

Those of the upkeep; `next` begins with the next zone, in TICK at a tick, for a reclaim in CPU_BUCKETS (generations 0
and 1), LISTS (3) or DRAIN, and ends after the last one.

    BEGIN           next; end
    TICK            next
    CPU_BUCKETS     CPU_BUCKETS of the next CPU; LISTS
    LISTS           FREE_BUCKET > LISTS; as DRAIN
    DRAIN           HEADER; UNMAP; next
    HEADER          UNMAP
    UNMAP           HEADER; UNMAP; next
"""

from kmemexp.sim.allocators._shared.packed_phase import FIELD_BITS

# Phases of allocations and frees, with their locks: c the CPU's, z the zone's, o that of UMA's own zone.
BEGIN = 0  # c
RETRY = 1  # c: take what is asked for from the CPU's buckets
MISS = 2  # z: these are empty
FILL = 3  # z: fill a bucket
SINGLE = 4  # z: no bucket is to be had: one item from a slab
INTERNAL = 5  # o: take a bucket or a header
INTERNAL_PAGE = 6  # o: the map has answered for a page of them
SLAB = 7  # z: the map has answered for a slab
UNHEADER = 8  # o: it has refused: give the header back
FREE_BUCKET = 9  # o: give a bucket back
FREE_RETRY = 10  # c: put what is freed into the CPU's buckets
FREE_MISS = 11  # z: they are full
ADD_BUCKET = 12  # z: put a new bucket on the zone's list
FREE_ITEM = 13  # z: no bucket is to be had: give the item to its slab
DROP_HEADER = 14  # o: eager release: give the header of the slab that has become free back
DROPPED = 15  # c: its pages are gone
LARGE = 16  # c: the map has answered for a large malloc
LARGE_UNHEADER = 17  # o: give its header back
INITED = 18  # z: a bucket of packets, or one of them, has got its clusters, or not all of them
FINI = 19  # z of clusters: give that of the packet that is freed to its slab

# Phases of the upkeep, with their locks: c a CPU's, z the zone's, o that of the headers' zone.
TICK = 32  # z
CPU_BUCKETS = 33  # c: empty a CPU's buckets
LISTS = 34  # z: empty the lists of buckets
DRAIN = 35  # z: take out the free slabs
HEADER = 36  # o: give the next one's header back
UNMAP = 37  # then its pages

# Fields of regs.PHASE above the phase, and flags.
FOR_SHIFT = FIELD_BITS
BACK_SHIFT = 2 * FIELD_BITS
OWN_SHIFT = 3 * FIELD_BITS
REFUSED = 1 << 24  # no new slab is asked for (M_NOVM)
FILLING = 1 << 25  # counted in Z_FILLS
GIVING_UP = 1 << 26  # an incomplete chain is freed
NESTED = 1 << 27  # packets get their clusters
