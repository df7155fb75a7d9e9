"""What an allocator is told of the kinds that it serves."""

from typing import NamedTuple

KMALLOC_SETS = ("plain", "accounted", "reclaimable", "dma", "msg_msg", "memdup_user")
"""Linux's sets of kmalloc() caches, one cache for each size in each."""

# Bits of Traits.flags: what a Linux cache is created with (include/linux/slab.h).
RECLAIM = 1  # SLAB_RECLAIM_ACCOUNT
ACCOUNT = 2  # SLAB_ACCOUNT
RCU = 4  # SLAB_TYPESAFE_BY_RCU
HWALIGN = 8  # SLAB_HWCACHE_ALIGN
CTOR = 16  # it has a constructor, so the link of a free object stands behind it
UNMERGED = 32  # it is merged with no other one, whatever the option says
# What a zone of FreeBSD's UMA is created with (sys/vm/uma.h).
NOFREE = 64  # UMA_ZONE_NOFREE: its slabs never go back
SMR = 128  # UMA_ZONE_SMR: freed items are reused when those who may still read them have passed
KSTACK = 256  # FreeBSD's kstack_cache: kernel stacks, with a guard page, from an arena of their own
DMA = 1024  # SLAB_CACHE_DMA: its pages are from ZONE_DMA
# What a load says of a kind.
PACKET = 512  # mbufs with their clusters: m_getcl()

AT_ONCE, CALL_RCU, KFREE_RCU = range(3)
"""When an object is free after its owner has done with it (Traits.free)."""
FREES = ("at_once", "call_rcu", "kfree_rcu")


class Traits(NamedTuple):
    """What a kernel knows of a cache or zone besides its size; 0: nothing special."""

    stride: int = 0  # bytes from one object to the next, if they are known
    kmalloc: int = 0  # which set of kmalloc() caches serves it; 0: the usual ones
    flags: int = 0
    align: int = 0
    sheaf: int = 0  # objects in a sheaf, if the cache asks for them
    free: int = 0  # AT_ONCE …
    type: int = 0  # number of its malloc type, from 1 on, if a role names it


PLAIN = Traits()


class Item(NamedTuple):
    """One zone (or other typed item) that an allocator serves; its place in the list is regs.ITEM."""

    size: int  # bytes of an object
    growth: int  # pages per growth; 0 counts as 1
    limit: int  # entries of an interrupt zone whose KVA is set aside at boot; 0: grows on demand
    traits: Traits = PLAIN
