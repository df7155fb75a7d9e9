"""Map calls of real kernels, by the names of their functions: what holds which lock from where to where.

An allocator names the ones that its source calls in its CALLS. The words are read by `kmemexp.parts.map_calls`.
"""

# FreeBSD 4 and DragonFly, sys/vm/vm_kern.c and vm_map.c (2003). kmem_malloc() holds the map's lock from the search to
# the last pmap_enter(); kmem_alloc() gives it back before it grabs pages, for which it always waits, and takes it
# again to wire them.
KMEM_MALLOC = "lock space pages enter unlock"
KMEM_ALLOC = "lock space unlock grab lock enter unlock"
KMEM_FREE = "lock unmap pages space unlock"  # vm_map_remove()

# FreeBSD 5, sys/vm/vm_kern.c (2003 to 2004): inside the map's mutex the object's, over each loop over pages.
KMEM_MALLOC_5 = "lock space object pages unobject object enter unobject unlock"
KMEM_FREE_5 = "lock unmap object pages unobject space unlock"

# FreeBSD since 2013, kmem_malloc_domain(), kmem_back_domain(), _kmem_unback(): the arena's mutex for KVA alone.
KMEM_BACK = "lock space unlock object pages enter unobject"
KMEM_UNBACK = "unmap object pages unobject lock space unlock"
KSTACK = "lock space unlock object grab enter unobject"  # vm_thread_stack_create(): pages of class NORMAL

# illumos, uts/common/vm/seg_kmem.c: segkmem_xalloc(), segkmem_free_vn(). Levels of arenas never nest; freemem_lock of
# page_resv() is left out.
SEGKMEM_XALLOC = "lock space unlock pages enter"
SEGKMEM_FREE = "unmap pages lock space unlock"

# Linux, mm/page_alloc.c: blocks that CPUs keep (rmqueue_pcplist, free_unref_page) under the CPU's lock, and inside it
# under zone->lock where its list is filled or gives some back; other blocks under zone->lock alone.
PCP_PAGES = "cpu space pages zone uncpu"
ZONE_PAGES = "lock space pages unlock"

# Linux, mm/vmalloc.c: an area of its node's pool under the node's lock, else under free_vmap_area_lock; pages after it.
VMALLOC = "cpu space zone uncpu pages enter"
VFREE = "unmap cpu space zone uncpu pages"
