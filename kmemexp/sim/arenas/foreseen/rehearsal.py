"""What a rehearsal tells: until when each range lives, and where it is to lie if the longest-lived choose first."""

import numpy as np

from kmemexp.jit import entry
from kmemexp.sim.aliases import Table, Words
from kmemexp.sim.arenas._shared import hole_list
from kmemexp.sim.arenas.foreseen.state import (
    ADDR,
    ALIGN,
    BORN,
    BYTES,
    DIES,
    DIFFERS,
    END,
    KNOWN,
    LONGEST_FIRST,
    MAP,
    NOW,
    REQUESTS,
    State,
)

MOST_PLACED = 1 << 18  # requests of a map that are placed longest-lived first: that takes time as their square


def foresee(st: State, rehearsed: State) -> None:
    """Let an arena that is new know what another one has seen. ValueError: it is too much."""
    count, end = int(rehearsed.clock[REQUESTS]), int(rehearsed.clock[NOW]) + 1
    if rehearsed.clock[DIFFERS]:
        raise ValueError(f"requests={st.p.requests}: the rehearsal has more")
    known = rehearsed.heard[:count].copy()
    known[(known[:, DIES] == 0) & (known[:, ADDR] >= 0), DIES] = end
    if st.p.plan == LONGEST_FIRST:
        _place_all(known, rehearsed)
    st.known[:count] = known
    st.clock[KNOWN], st.clock[END] = count, end


def differs(st: State) -> str:
    """Say where the requests are not those of the rehearsal, "" where they are."""
    n = int(st.clock[DIFFERS]) - 1
    if n < 0:
        return ""
    if n >= st.p.requests:
        return f"requests={st.p.requests}: there are more"
    (was, now) = (
        f"{row[BYTES]} bytes of map {row[MAP]} after {row[BORN]} map calls" for row in (st.known[n], st.heard[n])
    )
    what = f"{now}, where its rehearsal had asked for {was}" if was != now else f"{now} found room in one of them only"
    return f"request {n}: {what}; nothing is foreseen"


def _place_all(known: Table, rehearsed: State) -> None:
    """Give each request of `known` its address, the longest-lived of each map first."""
    for m in np.argsort(rehearsed.home, kind="stable").tolist():
        size = int(rehearsed.maps[m, hole_list.TOP] - rehearsed.maps[m, hole_list.BASE])
        if not size:
            continue
        begin = int(known[rehearsed.home[m] - 1, ADDR]) if m else 0
        mine = np.flatnonzero((known[:, MAP] == m) & (known[:, DIES] > 0))
        if len(mine) > MOST_PLACED:
            raise ValueError(f"plan=1: {len(mine)} requests of a map, which is more than {MOST_PLACED}")
        order = mine[np.argsort(known[mine, BORN] - known[mine, DIES], kind="stable")]
        rows = np.ascontiguousarray(known[order])
        entry(place_longest)(rows, np.empty(len(rows), np.int64), begin, begin + size)
        known[order, ADDR] = rows[:, ADDR]


def place_longest(rows: Table, placed: Words, begin: int, end: int) -> None:
    """Place the requests `rows` of a map [begin, end) in their order, each as low as it is free for all of its life.

    `placed`: int64[rows], room for those that are placed, by address. Without room the address is -1.
    """
    count = 0
    for n in range(len(rows)):
        nbytes, align = rows[n, BYTES], rows[n, ALIGN]
        at = (begin + align - 1) // align * align
        for other in placed[:count]:
            if rows[other, BORN] >= rows[n, DIES] or rows[n, BORN] >= rows[other, DIES]:
                continue
            if rows[other, ADDR] >= at + nbytes:
                break
            at = max(at, (rows[other, ADDR] + rows[other, BYTES] + align - 1) // align * align)
        rows[n, ADDR] = at if at + nbytes <= end else -1
        if rows[n, ADDR] < 0:
            continue
        k = count
        while k > 0 and rows[placed[k - 1], ADDR] > at:
            placed[k] = placed[k - 1]
            k -= 1
        placed[k] = n
        count += 1
