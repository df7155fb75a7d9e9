"""Columns of a lock, and the kinds of lock (locks)."""

LOCK_KINDS = ("section", "spin", "adaptive", "sleep", "big", "token")
SECTION, SPIN, ADAPTIVE, SLEEP, BIG, TOKEN = range(len(LOCK_KINDS))

# Columns of a lock.
KIND = 0
OWNER = 1  # context (BIG: CPU); -1: free
MASK = 2  # spl mask of its section
CRIT = 3  # 1: its section is a critical section
HEAD = 4  # waiters
TAIL = 5
LAST = 6  # CPU that held it last; -1: none yet
NEXT = 7  # next of the locks that the owner holds
DEPTH = 8  # BIG: how often its CPU has taken it
SINCE = 9  # when it was taken
INHERIT = 10  # 1: a waiter lends the owner its priority
CEILING = 11  # priority that the owner has at least
TAKEN = 12  # statistics: times taken, after a wait, ns waited, ns held
WAITED = 13
WAIT_NS = 14
HELD_NS = 15
CLASS = 16  # number of its class (locks of one class share statistics)
HIST = 17  # place of its class's histogram of waits
BARGE = 18  # when it is released: 0: it is handed over; else WAKES_*, and who comes first takes it
COLUMNS = 19
WAKES_ONE = 1  # the first who sleeps for it
WAKES_ALL = 2
