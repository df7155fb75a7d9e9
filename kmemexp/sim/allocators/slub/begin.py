"""A cache of `allocators/slub` as a real kernel's stood when a recording began: slabs as full and listed as those."""

import numpy as np

from kmemexp.jit import entry, ref
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.slub import slabs
from kmemexp.sim.allocators.slub.slabs import add_partial, link_in, make_current, unfreeze
from kmemexp.sim.allocators.slub.state import State


@entry
def arrange(st: State, reg: Registers, k: int, pages: np.ndarray, free: np.ndarray, cpu: np.ndarray) -> None:
    """Free the first objects of full slabs of cache `k`, and list them in their order.

    pages, free, cpu: int64[slabs], a slab's first page; how many of its objects are free; the CPU whose current slab it
    is, or NIL: then it is on its node's list if it has free objects, else on none.
    """
    st = ref(st)
    for c in range(st.cpus):
        if st.cpu[k, c, slabs.C_SLAB] != slabs.NIL:
            unfreeze(st, k, c)
    step = st.cache[k, slabs.K_SIZE] >> slabs.WORD_SHIFT
    for j in range(len(pages)):
        slab = pages[j]
        for at in range(free[j]):
            link_in(st, slab, (slab << slabs.PAGE_WORD_SHIFT) + at * step)
        if cpu[j] != slabs.NIL:
            make_current(st, k, cpu[j], slab)
        elif free[j] > 0:
            add_partial(st, reg, 0, k, slab, 1)
