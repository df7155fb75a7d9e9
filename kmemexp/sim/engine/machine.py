"""The machine of the timed engine: its arrays, and the places of its globals.

The machine is one int64 array, `m`. Its first places are the globals and the cost table; then come tables, one row for
each CPU, context, lock and so on. A row is named by the place where it begins, so `m[x + X_STATE]` is a field of
context `x`, and links between rows are such places (-1: none). One array, because a kernel that is handed twenty takes
ten times as long to compile, and a link needs no multiplication to follow. The columns are described where they belong:
contexts and CPUs in `contexts`, locks in `locks`, sources and programs in `interrupts`.
"""

from typing import NamedTuple

import numpy as np


class Stream(NamedTuple):
    """A lane's operations as the engine takes them: `order` sorts them by level and CPU, FIFO in each queue."""

    time: np.ndarray  # int64[ops]
    op: np.ndarray
    kind: np.ndarray
    slot: np.ndarray
    size: np.ndarray
    flags: np.ndarray
    order: np.ndarray  # int32[ops]
    row_of: np.ndarray  # int32[ops], row of the object once the operation has been bound
    row_in: np.ndarray  # int32[slots], row of the object that has the slot


# Globals.
G_NOW = 0  # ns
G_EXIT = 1  # E_*
G_MODEL = 3  # of interrupts: ITHREAD, SPL
G_NESTED = 4  # 1: a context may preempt any other of lower priority (FreeBSD 5); 0: DragonFly's rule
G_CLOSED = 5  # 1: a stream's times are pauses before the operations
G_WOULD_SLEEP = 6  # what becomes of a request to sleep where it is forbidden: W_BLOCK, W_PANIC
G_ON_DEADLOCK = 7  # STOP, CONTINUE
G_BIG_LOCK = 8  # 1: operations and handlers run under the big lock, number 0
G_CPUS = 9
G_THREADS = 10  # mainline threads per CPU
G_IPI0 = 11  # first of the message handlers
G_BOUND = 12  # operations of the stream that have been bound to objects
G_ROW_FREE = 13  # first free row of the objects; -1: none
G_MSG_FREE = 14  # first free message; -1: none
G_LOG = 15  # events logged
G_SEED = 16
G_EVENTS = 17
G_SLEEP_LOCKED = 18  # 1: a request that waits for memory keeps its map locked
G_LEFT = 19  # operations of the stream that are not over

# Physical memory, in pages.
G_LIMITED = 20  # 0: no limit
G_FREE = 21
G_CACHE = 22  # clean pages that can be had at once
G_USER = 23  # pages that the page daemon can reclaim
G_INTERRUPT_MIN = 24
G_RESERVED = 25
G_MINIMUM = 26
G_TARGET = 27
G_SLEEPERS = 28  # first of the contexts that wait for memory
G_DAEMON = 29  # context of the page daemon; -1: none
G_CLUSTER = 30  # pages that the daemon frees at a time
G_LEAST_FREE = 31

# What happened.
N_DEADLOCKS = 32
N_WOULD_SLEEP = 33  # requests to sleep in a context that cannot
N_SELF = 34  # locks requested by their own holder
N_REVERSALS = 35  # pairs of locks taken in both orders
N_BLOCKABLE = 36  # locks that may sleep taken in a fast interrupt or a message handler
N_INTERRUPTS = 37
N_LOST = 38  # interrupts that found their ring full
N_SENT = 39  # messages sent
N_SHOOTDOWNS = 40
N_LOCKS = 41  # locks taken
N_CONTENDED = 42  # of these, after a wait
N_WAIT_NS = 43
N_HANDED = 44  # frees done by the context that was still allocating the object
N_PREEMPTIONS = 45
N_SLEPT = 46  # requests that waited for memory
N_WITNESS = 47  # rows of the witness
N_FORWARDED = 48  # interrupts delivered on the CPU that held the big lock
N_AREA = 49  # sum over interrupts in the system of ns, by events
N_INSIDE = 50  # interrupts in the system
N_AREA_AT = 51
N_SOJOURN = 52  # sum of the same ns, by interrupts that have left or waited
N_DONE = 53  # interrupts handled
N_WAITING = 54  # contexts that wait for a lock
N_WAIT_AREA = 55
N_WAIT_AT = 56
N_OPS_DONE = 57
N_DAEMON_PAGES = 58
N_PAGE_FAILURES = 59  # requests refused for want of pages
N_PANIC = 60  # first panic that the engine itself saw, P_*
N_PANICS = 61
N_DEADLOCK_AT = 62
N_ENDED_AT = 63  # when the last operation of the stream so far was over

# Where the tables are.
G_COST0 = 64  # the cost table (costs), in place
G_CTX0 = 96
G_CONTEXTS = 97
G_CPU0 = 98
G_LOCK0 = 99  # the first lock is the big lock
G_CPU_HEAP = 100
G_TIMER_HEAP = 101
G_DEPTH = 102  # of the rings
G_QUEUE = 103  # of the queues
G_MAPS = 104  # lock of each map
G_KINDS = 105
G_ROUTE = 106
G_HIST = 107
G_ORDER = 108  # matrix of classes of locks: 1 where one was taken while the other was held
G_CLASSES = 109
G_WITNESS0 = 110
G_LOG0 = 111
G_LOG_ROWS = 112
G_FREERS = 113  # 1: there are interrupts whose handlers free memory
G_QUEUE0 = 114  # queues of programs, and how many there are
G_QUEUES = 115
G_DIRECT_MAP = 116  # number of the map that is the direct map of physical memory; -1: none
G_SHORT = 121  # 1: whoever watches kernel_map's largest run found it too small
G_COUNT = 128

# Why the engine returned.
E_TIME = 1  # `until` has come
E_CHUNK = 2  # budget of events used up
E_GROW = 3  # rows of objects or messages are used up: enlarge them and go on
E_DEADLOCK = 4
E_DRY = 5  # nothing will ever happen again
E_DONE = 6  # the last operation of the stream is over

# Settings by their words in the configuration: their numbers are places in these lists.
MODELS = ("ithread", "spl")
(
    ITHREAD,  # a handler is a context like any other (DragonFly, FreeBSD 5)
    SPL,  # it borrows the stack of the context that it interrupts (FreeBSD 4)
) = range(len(MODELS))
WOULD_SLEEP = ("block", "panic")
(
    W_BLOCK,  # the context waits all the same
    W_PANIC,  # the request is refused, as if the kernel had panicked and gone on
) = range(len(WOULD_SLEEP))
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

# Messages.
M_NEXT = 0
M_AT = 1  # when it arrives
M_SERVER = 2
M_ITEM = 3
M_ADDR = 4
M_SIZE = 5
M_FLAGS = 6
M_PHASE = 7
M_COUNT = 8

# Kinds of lock (locks).
LOCK_KINDS = ("section", "spin", "adaptive", "sleep", "big", "token")
SECTION, SPIN, ADAPTIVE, SLEEP, BIG, TOKEN = range(len(LOCK_KINDS))

# Columns of a lock.
L_KIND = 0
L_OWNER = 1  # context (BIG: CPU); -1: free
L_MASK = 2  # spl mask of its section
L_CRIT = 3  # 1: its section is a critical section
L_HEAD = 4  # waiters
L_TAIL = 5
L_LAST = 6  # CPU that held it last; -1: none yet
L_NEXT = 7  # next of the locks that the owner holds
L_DEPTH = 8  # BIG: how often its CPU has taken it
L_SINCE = 9  # when it was taken
L_INHERIT = 10  # 1: a waiter lends the owner its priority
L_CEILING = 11  # priority that the owner has at least
L_TAKEN = 12  # statistics: times taken, after a wait, ns waited, ns held
L_WAITED = 13
L_WAIT_NS = 14
L_HELD_NS = 15
L_CLASS = 16  # number of its class (locks of one class share statistics)
L_HIST = 17  # place of its class's histogram of waits
L_COUNT = 18

# Routes: for each server, the locks of its steps.
RT_PER = 0  # which lock of class 0 a first step takes: PER_*
RT_KEEPS = 1  # 1: it keeps its spl mask or critical section during map steps
RT_HOME = 2  # lock of the map that it grows in
RT_LOCK = 3  # RT_LOCK + class: first lock of each class
RT_COUNT = 11
PER_ONE, PER_CPU, PER_ITEM = 0, 1, 2

# Kinds of object: who serves each.
KIND_SERVER = 0
KIND_ITEM = 1  # number in the server's own numbering
KIND_MAP = 2  # of what a map serves itself: the map, and ATTR_* of its entries
KIND_ATTR = 3
KIND_COUNT = 4

# What the log holds: time, event, context, and two numbers.
LOG_COUNT = 5
(LOG_RAISE, LOG_RUN, LOG_TAKE, LOG_RELEASE, LOG_WAIT, LOG_GRANT, LOG_BLOCK, LOG_OP, LOG_DONE, LOG_MEMORY, LOG_DEADLOCK,
 LOG_WOULD_SLEEP, LOG_SELF) = range(13)  # fmt: skip
