"""Who has which pages of a shared direct map, read by plain Python, and what must hold of it (slow, for tests)."""

from typing import Any

from kmemexp.jit import entry
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.contents import walk
from kmemexp.sim.arenas.buddy.contig import HELD_SHIFT
from kmemexp.sim.arenas.linux_mm import owners, state
from kmemexp.sim.arenas.linux_mm import zones as zones_
from kmemexp.sim.checks import insist


def owned(st: Any) -> dict[int, dict[int, int]]:
    """Blocks of each owner: {row of the owner: {first page: pages}}, in the order in which it has them."""
    found: dict[int, dict[int, int]] = {}
    gone, old = set(), int(st.meters[state.OLD_OWNER])
    while old:
        gone.add(old - 1)
        old = int(st.owners[old - 1, state.OLDER])
    for who in range(int(st.meters[state.NEW_OWNER])):
        if who not in gone:
            found[who] = dict(_chain(st, who))
    return found


def _chain(st: Any, who: int) -> list[tuple[int, int]]:
    blocks, before, page = [], -1, int(st.owners[who, state.FIRST])
    while page >= 0:
        row = entry(owners.row_of)(st, page)
        insist(st.mate[row, z.PREV] == before, "broken link between an owner's blocks")
        insist(st.owner[row] == who + 1, "an owner's block belongs to another")
        blocks.append((page, int(st.buddy.held[row]) >> HELD_SHIFT))
        before, page = page, int(st.mate[row, z.NEXT])
    return blocks


def by_age(st: Any, which: int = -1, node: int = 0) -> list[int]:
    """First pages of the blocks on a node's list by age, youngest first: of files (-1), of anonymous pages (-2)."""
    pages: list[int] = []
    which -= state.LISTS_BY_AGE * node
    page = int(st.buddy.lists[which, z.HEAD])
    while page >= 0:
        row = entry(z.link_row)(st.buddy, state.ANY_ZONE, page)
        insist(st.buddy.link[row, z.PREV] == (pages[-1] if pages else -1), "broken link of the list by age")
        pages.append(page)
        page = int(st.buddy.link[row, z.NEXT])
    insist(st.buddy.lists[which, z.TAIL] == (pages[-1] if pages else -1), "wrong tail of the list by age")
    return pages


def check(st: Any) -> None:
    """Assert that every page of a shared direct map has one owner, and that all is counted."""
    found = owned(st)
    blocks = {page: who for who, own in found.items() for page in own}
    insist(len(blocks) == st.buddy.maps[:, z.FOLIOS].sum(), "owners' blocks miscounted")
    zones = range(len(st.zones))
    held = {page: pages >> HELD_SHIFT for zone in zones for page, pages, _ in walk(st.buddy, zone) if pages}
    insist(all(held.get(page) == n for own in found.values() for page, n in own.items()), "a block is not in use")
    insist(len(held) == len(blocks) + st.buddy.maps[:, z.AREAS].sum(), "a block has no owner")
    for sort in range(3):
        pages = sum(sum(own.values()) for who, own in found.items() if st.owners[who, state.SORT] == sort)
        insist(pages == st.meters[state.PAGES_OF + sort], "owners' pages miscounted")
    insist(all(st.owners[who, state.PAGES] == sum(own.values()) for who, own in found.items()), "pages miscounted")
    for node in range(len(st.nodes)):
        here = {page: who for page, who in blocks.items() if entry(zones_.node_of_page)(st, page) == node}
        _check_node(
            st, node, [{p for p, who in here.items() if st.owners[who, state.SORT] == s} for s in range(3)], held
        )
    _check_elsewhere(st, found)


def _check_node(st: Any, node: int, blocks: list[set[int]], held: dict[int, int]) -> None:
    """Assert that what owners have on a node is counted and on its lists; `blocks`: of each sort."""
    for sort, own in enumerate(blocks):
        insist(sum(held[p] for p in own) == st.nodes[node, state.HELD + sort], "pages of a node miscounted")
    insist(sorted(by_age(st, -1, node)) == sorted(blocks[state.FILE_PAGES]), "the list by age is not the files' blocks")
    anonymous = sorted(by_age(st, -2, node)) if st.p.swap_mib else sorted(blocks[state.ANON_PAGES])
    insist(anonymous == sorted(blocks[state.ANON_PAGES]), "the second list by age is not the anonymous blocks")


def _check_elsewhere(st: Any, found: dict[int, dict[int, int]]) -> None:
    """Assert that what is to be written, and what is in the swap space, is counted."""
    insist(sum(int(st.owners[who, state.SWAPPED]) for who in found) == st.meters[state.SWAP_USED], "swap miscounted")
    dirty = [who for who in found if st.owners[who, state.IS_DIRTY]]
    insist(all(st.owners[who, state.IS_DIRTY] == 1 + sum(found[who].values()) for who in dirty), "a file is half dirty")
    insist(sum(sum(found[who].values()) for who in dirty) == st.meters[state.DIRTY], "dirty pages miscounted")
    listed, who = [], int(st.meters[state.DIRTY_OLD]) - 1
    while who >= 0:
        listed.append(who)
        who = int(st.owners[who, state.DIRTY_NEXT]) - 1
    insist(sorted(listed) == sorted(dirty), "the list of dirty files is not these")
