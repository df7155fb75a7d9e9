"""What `map_measure` writes of a map: totals, then free bytes by size class of the hole that they lie in."""

FREE = 0  # free bytes
LARGEST = 1  # bytes of the largest hole
HOLES = 2  # number of holes
ENTRIES = 3  # number of map entries in use
HIGH = 4  # highest address ever allocated, relative to the map's start
WALKED = 5  # entries that the policy's linear searches passed, since the beginning
ENTRY_BYTES = 6  # memory that the entries' own supply holds
WHOLE = 7  # aligned stretches of STRETCH bytes that lie in one hole
HIST = 8  # gauge.HIST + k: free bytes in holes of 2**k … 2**(k+1)-1 pages
CLASSES = 32
STRETCH = 2 << 20  # bytes: a superpage of the machines whose maps are too large for a picture of every page
CLAIMS = HIST + CLASSES  # pageblocks taken over for another mobility
STEALS = CLAIMS + 1  # pages taken from pageblocks of another mobility
PROMISED = STEALS + 1  # free bytes that are kept for whom they are guaranteed to
KEPT = PROMISED + 1  # bytes of free stretches in which they can be kept
# Of a map of physical pages by order and mobility: FREE_BLOCKS + type * ORDERS + order, free blocks on its lists.
FREE_BLOCKS = KEPT + 1
ORDERS = 11
PAGEBLOCKS = FREE_BLOCKS + 3 * ORDERS  # PAGEBLOCKS + type: pageblocks
STUCK = PAGEBLOCKS + 3  # pageblocks with pages in use that cannot be moved
MIXED = STUCK + 1  # movable ones among these
# What shares these pages with the kernel's allocators, and what is done when they run short.
ANON_PAGES = MIXED + 1
FILE_PAGES = ANON_PAGES + 1
KERNEL_PAGES = FILE_PAGES + 1
BY_KSWAPD = KERNEL_PAGES + 1  # pages reclaimed since the beginning
BY_REQUEST = BY_KSWAPD + 1
STALLS = BY_REQUEST + 1  # requests that reclaimed by themselves
DRAINS = STALLS + 1  # times that all CPUs' lists were emptied
COMPACTIONS = DRAINS + 1
GOT_BLOCK = COMPACTIONS + 1  # of these, those after which there was a block as wanted
MIGRATED = GOT_BLOCK + 1  # pages moved
RESERVED_BLOCKS = MIGRATED + 1  # pageblocks kept for requests for several pages that cannot wait
DIRTY = RESERVED_BLOCKS + 1  # pages of files that are not written yet
SWAPPED = DIRTY + 1  # pages in the swap space
WRITTEN = SWAPPED + 1  # pages written back since the beginning
WRITE_WAITS = WRITTEN + 1  # requests and writers that have waited for that
COLUMNS = WRITE_WAITS + 1
