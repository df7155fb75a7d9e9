"""How the historic kernel would have died (`regs.PANIC`); names in kmemexp/metrics."""

NONE = 0
KMEM_MAP = 1
KERNEL_MAP = 2
ENTRIES = 3
SELF = 4  # a lock requested by its own holder
SLEEP = 5  # sleep in an interrupt
IDLE_SLEEP = 6  # sleep in an interrupt that came while the CPU was idle
RECURSION = 7  # map entries run out while the map that would give more is locked
TYPE = 8  # a malloc type is at its limit (DragonFly)
