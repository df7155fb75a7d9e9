"""When objects died whose death left no event: what is proven, and a law of lifetimes for the rest.

For each (cache, call site): of its unseen but proven deaths, those at least are known to have lived no longer than
until their proof. The lower quartile of these spans stands for how long such objects live; the share of unseen among
all deaths for how many of the open lives are really over. It is right for short-lived objects of call sites whose frees
go by bulk or RCU, and wrong for caches that grow: there deaths are seen, and the law does nothing.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.workload.lives.proofs import NEVER

LEAST_SHARE = 0.1  # of unseen deaths, below which a site's open lives live on
LEAST_PROOFS = 3


class Site(NamedTuple):
    """Lives of one cache and call site; times in ns."""

    proven: np.ndarray  # int64[u], from birth to the proof of death
    seen: int  # deaths that had an event
    ages: np.ndarray  # int64[o], of the open lives at the end, oldest first


class Law(NamedTuple):
    """What the law says of a site."""

    spans: np.ndarray  # float64[u], lifetimes at which the proven deaths are put
    chance: np.ndarray  # float64[o], that an open life is over
    dies: np.ndarray  # bool[o], by the systematic draw
    after: float  # lifetime of these


def law(site: Site) -> Law:
    """Apply the law to a site."""
    n = len(site.proven)
    quartile = float(np.quantile(site.proven, 0.25)) if n else 0.0
    spans = np.minimum(site.proven, quartile)
    nothing = Law(spans, np.zeros(len(site.ages)), np.zeros(len(site.ages), np.bool_), 0.0)
    share = n / max(n + site.seen, 1)
    if n < LEAST_PROOFS or share < LEAST_SHARE:
        return nothing
    chance = share * np.searchsorted(np.sort(spans), site.ages, side="right") / (n + 1)
    return Law(spans, chance, drawn(chance, 0.5), float(np.median(spans)))


def drawn(chance: np.ndarray, start: float) -> np.ndarray:
    """Draw systematically: the sum of chances, begun at `start`, passes a whole number at each life that is over."""
    sums = np.floor(np.cumsum(chance) + start + 1e-9)
    return np.diff(sums, prepend=np.floor(start)) > 0


class Deaths(NamedTuple):
    """Deaths without an event, one row each."""

    life: np.ndarray  # int64, row of history.Lives
    time_ns: np.ndarray  # int64
    chance: np.ndarray  # float32, 1 where it is proven
    dies: np.ndarray  # bool, whether the law's own draw has it


def deaths(
    group: np.ndarray, born_ns: np.ndarray, proof_ns: np.ndarray, seen: np.ndarray, end_ns: int
) -> Deaths:  # fmt: skip
    """Find the deaths of all lives that were not seen to end.

    By life, in the order of birth: `group` (cache and call site), birth, `proof_ns` (NEVER: none), and whether its
    death was `seen`. `end_ns`: of the recording.
    """
    unseen = np.bincount(group[~seen], minlength=int(group.max(initial=-1)) + 1)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(unseen)))])
    parts = [
        _deaths_of(order[starts[g] : starts[g + 1]], born_ns, proof_ns, seen, end_ns) for g in np.flatnonzero(unseen)
    ]
    if not parts:
        return Deaths(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.bool_))
    return Deaths(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _deaths_of(
    rows: np.ndarray, born_ns: np.ndarray, proof_ns: np.ndarray, seen: np.ndarray, end_ns: int
) -> Deaths:  # fmt: skip
    """Find them for one group; `rows` are its lives in the order of birth."""
    proven = rows[~seen[rows] & (proof_ns[rows] != NEVER)]
    still = rows[~seen[rows] & (proof_ns[rows] == NEVER)]
    says = law(Site(proof_ns[proven] - born_ns[proven], int(seen[rows].sum()), end_ns - born_ns[still]))
    maybe = says.chance > 0
    open_time = np.minimum(born_ns[still[maybe]] + round(says.after), end_ns)
    return Deaths(
        np.concatenate([proven, still[maybe]]),
        np.concatenate([born_ns[proven] + says.spans.astype(np.int64), open_time]),
        np.concatenate([np.ones(len(proven)), says.chance[maybe]]).astype(np.float32),
        np.concatenate([np.ones(len(proven), np.bool_), says.dies[maybe]]),
    )
