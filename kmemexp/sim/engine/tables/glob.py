"""Globals: the first places of the machine's memory. `seen` has the places 32 to 63."""

NOW = 0  # ns
EXIT = 1  # E_*
MODEL = 3  # of interrupts: ITHREAD, SPL
NESTED = 4  # 1: a context may preempt any other of lower priority (FreeBSD 5); 0: DragonFly's rule
CLOSED = 5  # 1: a stream's times are pauses before the operations
WOULD_SLEEP = 6  # what becomes of a request to sleep where it is forbidden: WOULD_BLOCK, WOULD_PANIC
ON_DEADLOCK = 7  # STOP, CONTINUE
BIG_LOCK = 8  # 1: operations and handlers run under the big lock, number 0
CPUS = 9
THREADS = 10  # mainline threads per CPU
IPI0 = 11  # first of the message handlers
BOUND = 12  # operations of the stream that have been bound to objects
ROW_FREE = 13  # first free row of the objects; -1: none
MSG_FREE = 14  # first free message; -1: none
LOG = 15  # events logged
SEED = 16
EVENTS = 17
SLEEP_LOCKED = 18  # 1: a request that waits for memory keeps its map locked
LEFT = 19  # operations of the stream that are not over

# Physical memory, in pages.
LIMITED = 20  # 0: no limit
FREE = 21
CACHE = 22  # clean pages that can be had at once
USER = 23  # pages that the page daemon can reclaim
INTERRUPT_MIN = 24
RESERVED = 25
MINIMUM = 26
TARGET = 27
SLEEPERS = 28  # first of the contexts that wait for memory
DAEMON = 29  # context of the page daemon; -1: none
CLUSTER = 30  # pages that the daemon frees at a time
LEAST_FREE = 31

# Where the tables are.
COST0 = 64  # the cost table (costs), in place
CTX0 = 96
CONTEXTS = 97
CPU0 = 98
LOCK0 = 99  # the first lock is the big lock
CPU_HEAP = 100
TIMER_HEAP = 101
DEPTH = 102  # of the rings
QUEUE = 103  # of the queues
MAPS = 104  # lock of each map
KINDS = 105
ROUTE = 106
HIST = 107
ORDER = 108  # matrix of classes of locks: 1 where one was taken while the other was held
CLASSES = 109
WITNESS0 = 110
LOG0 = 111
LOG_ROWS = 112
FREERS = 113  # 1: there are interrupts whose handlers free memory
QUEUE0 = 114  # queues of programs, and how many there are
QUEUES = 115
DIRECT_MAP = 116  # number of the map that is the direct map of physical memory; -1: none
SHOTS = 117  # TLB shootdowns that others were asked to take part in
DISPATCH = 118  # ns of dispatching an interrupt thread, each way
BIG_WAIT = 119  # SPIN_FOR_BIG, QUEUE_FOR_BIG
SLICE = 120  # ns that a thread runs while others of its priority wait; 0: until it leaves the CPU
WATCHED = 122  # when the watchdog last looked
STALLS = 123  # CPUs that it has found without progress
LINES = 124  # table of the lines of objects, by whose cache they are in; 0: they move for nothing
SHORT = 121  # 1: kernel_map's largest run was found too small
COLUMNS = 128
