"""Columns of a CPU, and on what it spends its time."""

TOP = 3  # context on the CPU; -1: none
READY = 4  # first of the ready list; -1: none
CUT = 5  # ns of its burst that come after its key
OP = 6  # next operation of the mainline's stream, and the one after the last
END = 7
MARK = 8  # until when time is accounted
TIME = 9  # cpu.TIME + T_*: ns spent
MSG_HEAD = 15  # messages from other CPUs
MSG_TAIL = 16
FREE_AT = 17  # closed load: when the last operation ended
NUMBER = 18
BIG_WAITERS = 19  # contexts of this CPU that wait for the big lock
PARKED = 20  # first of the mainline threads without an operation
SHOT = 21  # first TLB shootdown that it has not answered, because interrupts were off; 0: none
SERVING = 22  # first of those that it is answering now; 0: none
ASKERS = 23  # first context that waits for its answer
STOLEN = 24  # ns of these that others have taken
SLICE = 25  # end of the slice of what it runs, where others of that priority wait; 0: none do
WAS = 26  # when the watchdog last looked: cpu.WAS + T_* of idle, mainline and spinning
STALLED = 29  # 1: the watchdog has found it without progress
ZONE = 30  # place of the lock of the zone that it asks for pages first, where zones have locks
COLUMNS = 31
TIME_COUNT = 6
TIME_IDLE, TIME_MAIN, TIME_SOFT, TIME_THREAD, TIME_FAST, TIME_SPIN = range(TIME_COUNT)
