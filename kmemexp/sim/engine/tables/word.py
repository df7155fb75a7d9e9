"""Words of a map call: what a map step does, one after the other (calls). Texts of them: `parts.map_calls`."""

WORDS = (
    "lock", "object", "cpu", "section", "unlock", "unobject", "uncpu", "leave", "zone", "space", "pages", "enter",
    "unmap", "flush", "grab",
)  # fmt: skip
(
    LOCK,  # take the map's lock
    OBJECT,  # take the lock of the object that the pages belong to (kernel_object, kmem_object)
    CPU,  # take the map's lock of this CPU, if it is free
    SECTION,  # enter the section of the step's lock: its spl mask, its critical section
    UNLOCK,
    UNOBJECT,
    UNCPU,
    LEAVE,
    ZONE,  # take the map's lock if the arena has worked under it, or the CPU's lock was not to be had
    SPACE,  # let the arena work
    PAGES,  # take physical pages, waiting for them perhaps, or give them back
    ENTER,  # enter them in the page tables
    UNMAP,  # take them out of the page tables, and flush the other CPUs' TLBs
    FLUSH,  # flush the TLBs all the same
    GRAB,  # take physical pages of class NORMAL, waiting for them whatever the flags: vm_page_grab()
) = range(len(WORDS))

# Words that every call ends with.
SKIP = len(WORDS)  # go on with the tail
UNDO = SKIP + 1  # give the range back, for there were too few pages
END = SKIP + 2

# A call is KEEPS, TAIL and UNDO_AT, then its words.
KEEPS = 0  # KEEPS_*: what of the step goes on
TAIL = 1  # distance from the beginning: what gives back all that is held still
UNDO_AT = 2
FIRST = 3
KEEPS_SECTION = 1  # its lock, if it is a section alone
KEEPS_LOCK = 2  # its lock, whatever it is

# What is held during a call, bits of ctx.HOLDS: bit w & HELD_BY is that of word w.
HELD_BY = 3
HOLDS_MAP = 1 << LOCK
HOLDS_OBJECT = 1 << OBJECT
HOLDS_CPU = 1 << CPU
HOLDS_SECTION = 1 << SECTION
HOLDS_STEP = 1 << 4  # the step's lock, which is no section
