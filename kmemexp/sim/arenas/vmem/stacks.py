"""FreeBSD 15's kernel stacks: an arena of each domain, imported from the domain's; `st` is the State of `arenas.vmem`.

vm_glue.c of 15.0: vm_thread_alloc_kstack_kva(), vm_thread_kstack_arena_import() and _release().
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas._shared.powers import round_up
from kmemexp.sim.arenas.vmem import alloc as v
from kmemexp.sim.arenas.vmem.state import BEST_FIT, State
from kmemexp.sim.slots import ATTR_WIRED, NO_SPACE, PAGE, PAGE_SHIFT

STACK_PAGES = 5  # of a kernel stack, its guard page among them (kstack_pages, KSTACK_GUARD_PAGES)


@kernel
def stack_arena(st: State, d: int) -> int:
    """Arena of the kernel stacks of a domain."""
    return st.maps + st.p.domains + d


@kernel
def holds_stacks(st: State, a: int) -> bool:
    """Whether an arena is one of kernel stacks."""
    return a >= st.maps + st.p.domains


@outlined
def stack_alloc(st: State, d: int) -> int:
    """vm_thread_alloc_kstack_kva(): KVA of a stack and its guard page. Returns the address or NO_SPACE."""
    a, nbytes = stack_arena(st, d), STACK_PAGES << PAGE_SHIFT
    if st.arena[a, g.HAND] < v.BT_MAXALLOC and not v.fill(st, a):
        st.supply[v.NO_TAGS] += 1
        return NO_SPACE
    row = v.search(st, a, nbytes, PAGE, BEST_FIT)
    if row == 0:
        if not import_stacks(st, d, a):
            return NO_SPACE
        row = v.search(st, a, nbytes, PAGE, BEST_FIT)
    addr = st.seg[row, g.START]
    v.clip(st, a, row, addr, nbytes, ATTR_WIRED | (1 + a - st.maps) << v.DOMAIN_SHIFT)
    return addr


@outlined
def import_stacks(st: State, d: int, a: int) -> bool:
    """vm_thread_kstack_arena_import(): a superpage for each page of a stack. False: the domain's arena has no room.

    The span begins where a stack does that is numbered through the KVA, and is a stack shorter.
    """
    addr = v.domain_alloc(st, d, STACK_PAGES * v.SUPERPAGE, v.SUPERPAGE, v.IMPORT)
    if addr < 0:
        return False
    parent = g.in_use(st, 0, addr)
    st.table[(addr >> PAGE_SHIFT) + st.arena[0, g.SHIFT]] = 0  # this page of the table is the stacks'
    first = round_up(addr, STACK_PAGES << PAGE_SHIFT)
    end = first + STACK_PAGES * (v.SUPERPAGE - PAGE)
    span = g.insert(st, a, st.seg[a, g.PREV], g.SPAN, first, end)
    st.seg[span, g.NOTE] = parent
    v.give(st, a, g.insert(st, a, span, g.FREE, first, end))
    return True


@outlined
def stack_free(st: State, a: int, row: int) -> None:
    """vmem_xfree() of a stack: a span that is wholly free goes back, vm_thread_kstack_arena_release()."""
    row = g.merge(st, a, row)
    span = st.seg[row, g.PREV]
    if st.seg[span, g.KIND] == g.SPAN and g.size(st, span) == g.size(st, row):
        parent = st.seg[span, g.NOTE]
        g.remove(st, a, row)
        g.remove(st, a, span)
        v.xfree(st, a - st.p.domains, parent)
    else:
        v.give(st, a, row)
    v.trim_tags(st, a)
