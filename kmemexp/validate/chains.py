"""Small arenas under random loads as exact Markov chains over their layouts.

The layouts and what leads from one to another come from a search (`exhaustive.search`, through an arena's own code, or
`layouts.search`, a model written apart); this file has their stationary distributions.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from kmemexp.sim.aliases import Shares, Words
from kmemexp.sim.arenas import sequential, vm_map
from kmemexp.sim.arenas.sequential import BEST_FIT, FIRST_FIT, NEXT_FIT, WORST_FIT
from kmemexp.validate import copies_sequential, copies_vm_map, exhaustive
from kmemexp.validate.exhaustive import Found

POLICIES = {"FF": FIRST_FIT, "BF": BEST_FIT, "NF": NEXT_FIT, "WF": WORST_FIT}
SETTLED = 1e-12


def every_sequence(policy: str, sizes: tuple[int, ...], limit: int, *, states: int = 150_000) -> Found:
    """All requests with at most `limit` live cells, in a heap that grows upwards; `vm_map` is FreeBSD's first fit."""
    aligned = policy.endswith("aligned")
    if policy.startswith("vm_map"):
        return exhaustive.search(vm_map, copies_vm_map, sizes, limit, entry_limit=100, states=states, aligned=aligned)
    return exhaustive.search(
        sequential, copies_sequential, sizes, limit, policy=POLICIES.get(policy, FIRST_FIT), tail_last=1,
        aligned=aligned, states=states,
    )  # fmt: skip


def chain(policy: str, sizes: tuple[int, ...], cells: int) -> Found:
    """All requests to an arena of so many cells."""
    if policy == "vm_map":
        return exhaustive.search(vm_map, copies_vm_map, sizes, cells, cells=cells, entry_limit=100)
    return exhaustive.search(sequential, copies_sequential, sizes, cells, cells=cells, policy=POLICIES[policy])


class Loss(NamedTuple):
    """Of an arena under Poisson load whose requests are lost when they do not fit; by size, in the load's order."""

    util: float
    holes: float
    blocked: Shares
    fragmented: Shares  # blocked although there were cells enough


class Saturated(NamedTuple):
    """Of an arena with a queue that is never empty."""

    util: float
    blocks: float
    holes: float


def stationary(pi: Shares, out: Shares, inflow: Callable[[Shares], Shares], rounds: int = 20_000) -> Shares:
    """Solve pi Q = 0 by the power method on the uniformised chain: `out` rates of leaving, `inflow` into each state."""
    fastest = 1.01 * float(out.max())
    for _ in range(rounds):
        before, pi = pi, pi + (inflow(pi) - out * pi) / fastest
        if np.abs(pi - before).sum() < SETTLED:
            break
    settled: Shares = pi / pi.sum()
    return settled


def free_cells(found: Found, cells: int) -> Words:
    """Of each layout."""
    free: Words = cells - found.cells.sum(axis=1, dtype=np.int64)
    return free


def holes(found: Found, cells: int) -> Words:
    """Number of maximal runs of free cells in each layout."""
    taken = np.zeros((found.states, cells + 2), bool)
    taken[:, [0, -1]] = True
    for size in range(1, exhaustive.LARGEST + 1):
        row, at = np.nonzero(found.cells == size)
        for k in range(size):
            taken[row, at + k + 1] = True
    count: Words = (taken[:, :-1] & ~taken[:, 1:]).sum(axis=1)
    return count


def loss(found: Found, load: Mapping[int, float], cells: int) -> Loss:
    """Requests of each size come at a rate, stay for Exp(1), and are lost where they do not fit (PASTA)."""
    source, what, target = found.edges.T.astype(np.int64)
    rate = np.append(list(load.values()), 1.0)[what]
    into = sparse.csr_matrix((rate, (target, source)), (found.states, found.states))
    start = np.eye(1, found.states)[0]
    pi = stationary(start, np.bincount(source, rate, found.states), lambda pi: into @ pi)
    free = free_cells(found, cells)
    blocked, fragmented = [], []
    for k, size in enumerate(load):
        fits = np.zeros(found.states, bool)
        fits[source[what == k]] = True
        blocked.append(float(pi @ ~fits))
        fragmented.append(float(pi @ (~fits & (free >= size))))
    return Loss(float(1 - pi @ free / cells), float(pi @ holes(found, cells)), np.array(blocked), np.array(fragmented))


def saturated(found: Found, law: Mapping[int, float], cells: int) -> Saturated:
    """Sizes are drawn by a law; the head of the queue waits until it fits, and then the next is drawn.

    A state is a layout and which size is at the head.
    """
    heads, p = len(law), np.array(list(law.values()))
    n = found.states * heads
    source, what, target = found.edges.T.astype(np.int64)
    # A head that fits goes in, and the next one is drawn; one that does not waits.
    fits = what < heads
    waiting = np.ones(n)
    waiting[source[fits] * heads + what[fits]] = 0
    rows = (target[fits, None] * heads + np.arange(heads)).ravel()
    columns = np.repeat(source[fits] * heads + what[fits], heads)
    enter = sparse.csr_matrix((np.tile(p, fits.sum()), (rows, columns)), (n, n))
    free = sparse.csr_matrix((np.ones((~fits).sum()), (target[~fits], source[~fits])), (found.states, found.states))
    leave = sparse.kron(free, sparse.identity(heads), format="csr")

    waits = sparse.diags(waiting, format="csr")

    def settled(pi: Any) -> Any:
        """Let heads go in until each waits; of a vector, or of each column of a matrix."""
        total = waits @ pi
        for _ in range(cells):
            pi = enter @ pi
            if not pi.sum():
                break
            total = total + waits @ pi
        return total

    # All mass is where heads wait: one matrix leads from there over a departure to there.
    there = np.flatnonzero(waiting)
    step = settled(leave[:, there])[there]
    blocks = (found.cells > 0).sum(axis=1)
    start = settled(np.repeat(np.eye(1, found.states)[0], heads) * np.tile(p, found.states))
    pi = np.zeros(n)
    pi[there] = stationary(start[there], np.repeat(blocks, heads)[there], lambda pi: step @ pi)
    by_layout = pi.reshape(found.states, heads).sum(axis=1)
    return Saturated(
        float(1 - by_layout @ free_cells(found, cells) / cells),
        float(by_layout @ blocks),
        float(by_layout @ holes(found, cells)),
    )


def kaufman_roberts(cells: int, load: Mapping[int, float]) -> tuple[float, list[float]]:
    """Utilisation and blocking by size where requests need cells, but not in one piece (Kaufman 1981, Roberts 1981)."""
    q = [1.0]
    for x in range(1, cells + 1):
        q.append(sum(a * z * q[x - z] for z, a in load.items() if z <= x) / x)
    share = np.array(q) / sum(q)
    return float(share @ np.arange(cells + 1) / cells), [float(share[cells - z + 1 :].sum()) for z in load]


def erlang_b(servers: int, load: float) -> float:
    """Share of the requests that are lost where each needs one of so many units."""
    b = 1.0
    for n in range(1, servers + 1):
        b = load * b / (n + load * b)
    return b
