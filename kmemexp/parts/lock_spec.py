"""How a part writes its locks ("splhigh", "critical+spin", "sleep+inherit"), and what each spl level covers."""

from collections.abc import Iterable

import numpy as np

from kmemexp.errors import ConfigError
from kmemexp.sim.engine.tables import lock

CLASSES = (
    "tty",
    "net",
    "bio",
    "cam",
    "clock",
    "stat",
    "softtty",
    "softnet",
    "softcam",
    "softvm",
    "softtq",
    "softclock",
)
"""Classes of interrupts, one bit of an spl mask each (FreeBSD 4 sys/i386/isa/ipl_funcs.c, include/ipl.h)."""
SOFT_CLASSES = frozenset(name for name in CLASSES if name.startswith("soft"))
LATE = ("softtq", "softclock")  # blocked by every mask but those of the clocks
SPL = {
    "spltty": ("tty", *LATE),
    "splimp": ("net", *LATE),
    "splnet": ("softnet", *LATE),
    "splbio": ("bio", *LATE),
    "splcam": ("cam", *LATE),
    "splvm": ("net", "bio", "cam", *LATE),
    "splsoftclock": ("softclock",),
    "splstatclock": ("stat",),
    "splclock": CLASSES,
    "splhigh": CLASSES,
}
"""What each level covers."""
BARGED = {lock.ADAPTIVE: lock.WAKES_ONE, lock.SLEEP: lock.WAKES_ALL}
"""Kinds of lock for which who comes first may take what sleepers are woken for, unless the text says otherwise."""
WAKING = {"fifo": 0, "barging": lock.WAKES_ONE, "wakeall": lock.WAKES_ALL}
"""Words of what becomes of a lock that is released: it is handed over, or one sleeper or all are woken to try."""


def lock_row(spec: str, klass: int) -> np.ndarray:
    """Build a free lock, int64[lock.COLUMNS], from a text such as "splhigh", "critical+spin" or "spin+ceiling=30".

    "irqoff" keeps all interrupts of one CPU out, messages of other CPUs too (local_irq_save); it never stands for a
    lock between CPUs, as a bare spl level does where there are several and no big lock.
    """
    kind, mask, critical, inherit, ceiling = lock.SECTION, 0, 0, 0, 0
    barge: int | None = None
    for word in spec.split("+"):
        if word in SPL:
            mask |= mask_of(SPL[word])
        elif word in lock.LOCK_KINDS:
            kind = lock.LOCK_KINDS.index(word)
        elif word == "irqoff":
            mask |= mask_of(CLASSES)
            critical = 1
        elif word == "critical":
            critical = 1
        elif word in WAKING:
            barge = WAKING[word]
        elif word == "inherit":
            inherit = 1
        elif word.startswith("ceiling="):
            ceiling = int(word.removeprefix("ceiling="))
        elif word != "none":
            words = ["critical", "irqoff", "inherit", *WAKING, "ceiling=N", "none"]
            known = [*lock.LOCK_KINDS, *SPL, *words]
            raise ConfigError(f"lock {spec!r}: unknown word {word!r}; there are {', '.join(known)}")
    row = np.zeros(lock.COLUMNS, np.int64)
    row[[lock.OWNER, lock.HEAD, lock.TAIL, lock.LAST, lock.NEXT]] = -1
    row[lock.KIND], row[lock.MASK], row[lock.CRIT] = kind, mask, critical
    row[lock.INHERIT] = inherit or kind == lock.ADAPTIVE  # a turnstile
    row[lock.BARGE] = BARGED.get(kind, 0) if barge is None else barge
    row[lock.CEILING], row[lock.CLASS] = ceiling, klass
    return row


def mask_of(classes: Iterable[str]) -> int:
    """Bits of classes of interrupts."""
    return sum(1 << CLASSES.index(name) for name in classes)


def raised_by(klass: str) -> int:
    """Mask that a handler of a class runs with under the spl model: its own class, and all soft interrupts."""
    if not klass:
        return 0
    own = SPL.get(f"spl{klass}", (klass,)) if klass in SOFT_CLASSES else (klass,)
    return mask_of({*own, *LATE} if klass in SOFT_CLASSES else {*own, *SOFT_CLASSES})
