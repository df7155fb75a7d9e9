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
COLUMNS = KEPT + 1
