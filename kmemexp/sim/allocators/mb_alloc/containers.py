"""Buckets of `allocators/mb_alloc` and the containers that they are in: what its steps do, without their order."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared.mbufs import MSHIFT, NIL
from kmemexp.sim.allocators.mb_alloc.state import State
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

PAGE_PIECES_SHIFT = PAGE_SHIFT - MSHIFT

# Columns of State.sort.
SIZE = 0  # bytes of a buffer
PAGES = 1  # of a bucket
EACH = 2  # buffers of a bucket
LIMIT = 3  # buffers that the submap has room for
HIGH = 4  # free ones that a CPU may have
BOOT = 5  # buckets that a CPU begins with
ASKED = 6  # buffers made, or being asked for
TOTAL = 7  # made
FULL = 8  # ml_mapfull
SORT_COLUMNS = 9

# Columns of State.box, a container.
HEAD = 0  # first bucket
COUNT = 1  # free buffers in it
STARVED = 2
BOX_COLUMNS = 3

# Columns of State.bucket. A bucket is named by its first page; FIRST is that of any of its pages.
FIRST = 0
SORT = 1
OWNER = 2  # CPU, or the number of CPUs: general
FREE = 3  # free buffers; without any it is on no list
TOP = 4  # the one to hand out next, in units of 256 bytes
NEXT = 5  # on the container's list
BUCKET_COLUMNS = 6


@kernel
def pop(st: State, c: int, k: int) -> int:
    """Take a buffer of the first bucket of container `c`, which has one."""
    b = st.box[c, k, HEAD]
    piece = wide(st.bucket[b, TOP])
    st.bucket[b, TOP] = st.link[piece]
    st.bucket[b, FREE] -= 1
    st.box[c, k, COUNT] -= 1
    if st.bucket[b, FREE] == 0:
        st.box[c, k, HEAD] = st.bucket[b, NEXT]
    return piece


@kernel
def enter(st: State, c: int, k: int, b: int) -> None:
    """Make a bucket that is on no list, with what is free in it, container `c`'s, the first."""
    st.bucket[b, OWNER] = c
    st.bucket[b, NEXT] = st.box[c, k, HEAD]
    st.box[c, k, HEAD] = b
    st.box[c, k, COUNT] += st.bucket[b, FREE]


@kernel
def leave(st: State, c: int, k: int) -> int:
    """Take the first bucket, with what is free in it, out of container `c`."""
    b = st.box[c, k, HEAD]
    st.box[c, k, HEAD] = st.bucket[b, NEXT]
    st.box[c, k, COUNT] -= st.bucket[b, FREE]
    return b


@kernel
def new_bucket(st: State, reg: Registers, i: int, k: int) -> None:
    """Fill a bucket in new pages and put it into the CPU's container: mb_pop_cont()."""
    base, size = reg[i, regs.BASE], st.sort[k, SIZE]
    b = base >> PAGE_SHIFT
    top = NIL
    for n in range(st.sort[k, EACH]):
        piece = (base + n * size) >> MSHIFT
        st.link[piece] = top
        top = piece
    for page in range(b, b + st.sort[k, PAGES]):
        st.bucket[page, FIRST] = b
    st.bucket[b, SORT] = k
    st.bucket[b, FREE] = st.sort[k, EACH]
    st.bucket[b, TOP] = top
    st.sort[k, TOTAL] += st.sort[k, EACH]
    enter(st, reg[i, regs.CPU], k, b)
    reg[i, regs.WORK] = st.sort[k, EACH] - 1


@kernel
def put(st: State, c: int, k: int, b: int, piece: int, crowded: int) -> None:
    """Push a buffer on its bucket in container `c`; if that is crowded, make a bucket general."""
    listed = st.bucket[b, FREE] > 0
    st.link[piece] = st.bucket[b, TOP]
    st.bucket[b, TOP] = piece
    st.bucket[b, FREE] += 1
    if listed:
        st.box[c, k, COUNT] += 1
    if crowded:
        st.box[c, k, STARVED] = 0  # nobody sleeps for a buffer
        enter(st, st.general, k, leave(st, c, k) if listed else b)
    elif not listed:
        enter(st, c, k, b)
