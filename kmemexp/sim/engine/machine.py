"""The machine of the timed engine: its arrays, and the places of its globals.

The machine is one int64 array, `m`. Its first places are the globals and the cost table; then come tables, one row for
each CPU, context, lock and so on. A row is named by the place where it begins, so `m[x + ctx.STATE]` is a field of
context `x`, and links between rows are such places (-1: none). One array, because a kernel that is handed twenty takes
ten times as long to compile, and a link needs no multiplication to follow. The columns are described where they belong:
contexts and CPUs in `contexts`, locks in `locks`, sources and programs in `interrupts`.
"""

from typing import NamedTuple

from kmemexp.sim.aliases import Array, Words


class Stream(NamedTuple):
    """A lane's operations as the engine takes them: `order` sorts them by level and CPU, FIFO in each queue."""

    time: Words  # int64[ops], in the order of `order`; all else by the number of the operation
    op: Array
    kind: Array
    slot: Array
    size: Array
    flags: Array
    order: Words  # int32[ops]
    row_of: Words  # int32[ops], row of the object once the operation has been bound
    row_in: Words  # int32[slots], row of the object that has the slot


# Why the engine returned.
E_TIME = 1  # `until` has come
E_CHUNK = 2  # budget of events used up
E_GROW = 3  # rows of objects or messages are used up: enlarge them and go on
E_DEADLOCK = 4
E_DRY = 5  # nothing will ever happen again
E_DONE = 6  # the last operation of the stream is over
E_RUNAWAY = 7  # an operation took more steps than tally.MOST_STEPS

# Settings by their words in the configuration: their numbers are places in these lists.
MODELS = ("ithread", "spl")
(
    ITHREAD,  # a handler is a context like any other (DragonFly, FreeBSD 5)
    SPL,  # it borrows the stack of the context that it interrupts (FreeBSD 4)
) = range(len(MODELS))
WOULD_SLEEP = ("block", "panic")
(
    WOULD_BLOCK,  # the context waits all the same
    WOULD_PANIC,  # the request is refused, as if the kernel had panicked and gone on
) = range(len(WOULD_SLEEP))
DISPATCH = ("borrow", "preempt", "switch")
(
    BORROW,  # a handler runs on the stack of what it interrupts
    PREEMPT,  # an interrupt thread runs on top of it, without a full switch (LWKT; illumos)
    SWITCH,  # a full switch to the interrupt thread, and one back (FreeBSD 5)
) = range(len(DISPATCH))
BIG_WAIT = ("spin", "queue")
(
    SPIN_FOR_BIG,  # who wants the big lock spins for it
    QUEUE_FOR_BIG,  # it leaves the CPU to others that can run, and preempts nobody before it can have it (LWKT)
) = range(len(BIG_WAIT))
PAGE_RULES = ("exclusive", "bits", "floor", "count")
(
    EXCLUSIVE,  # a request is of one class (FreeBSD 4 and 5, DragonFly of 2003)
    BITS,  # it may be of several (DragonFly, 2005 to 2010)
    FLOOR,  # the same, and SYSTEM leaves more than two pages to interrupts (DragonFly, 2020)
    COUNT,  # free pages are counted down to the limit of the class; there are no cache pages (FreeBSD since 2018)
) = range(len(PAGE_RULES))
ON_DEADLOCK = ("stop", "continue")
(
    STOP,  # the lane ends
    CONTINUE,  # the request that closed the circle is refused, and the lane goes on
) = range(len(ON_DEADLOCK))

# Kinds of context, and the modes of the sources whose handlers or tasks they are.
MODES = ("task", "soft", "device", "fast")
(
    MAIN,  # mainline thread
    SOFT,  # soft interrupt
    THREAD,  # interrupt thread, or device handler under the spl model
    FAST,  # fast interrupt; handler of messages between CPUs (IPI)
) = range(len(MODES))


# Kinds of object: who serves each.
KIND_SERVER = 0
KIND_ITEM = 1  # number in the server's own numbering
KIND_MAP = 2  # of what a map serves itself: the map, and ATTR_* of its entries
KIND_ATTR = 3
KIND_COUNT = 4

# What the log holds: time, event, context, and two numbers.
LOG_COUNT = 5
(LOG_RAISE, LOG_RUN, LOG_TAKE, LOG_RELEASE, LOG_WAIT, LOG_GRANT, LOG_BLOCK, LOG_OP, LOG_DONE, LOG_MEMORY, LOG_DEADLOCK,
 LOG_WOULD_SLEEP, LOG_SELF, LOG_ENTER, LOG_LEAVE, LOG_PAGES, LOG_SHOOTDOWN, LOG_OBJECT) = range(18)  # fmt: skip
