"""The arena `regions` once more, with a list of pages and no other bookkeeping: what `sim.arenas.regions` must equal.

Addresses and sizes are in pages. One map; a page is None, or the range that it was allocated as.
"""

from dataclasses import dataclass, field
from fractions import Fraction

TOGETHER, NEVER_FREED, BY_USE, BY_LIFETIME = range(4)
FREE, LONG, SHORT, WIRED, MIXED = range(5)


@dataclass(eq=False)
class Range:
    """What one request got."""

    who: int
    born: int


@dataclass
class Requester:
    entered: int = 0
    freed: int = 0
    mean: int = 0


@dataclass
class Regions:
    pages: int
    unit: int  # pages of a region
    segregate: int = TOGETHER
    fullest: bool = False
    two_ended: bool = False
    lifetime: int = 1
    patience: int = 64
    clock: int = 1
    page: list = field(default_factory=list)
    klass: list = field(default_factory=list)
    known: dict = field(default_factory=dict)

    def __post_init__(self):
        self.page = [None] * self.pages
        self.klass = [FREE] * -(-self.pages // self.unit)

    def span(self, k):
        return range(k * self.unit, min((k + 1) * self.unit, self.pages))

    def taken(self, k):
        return sum(self.page[p] is not None for p in self.span(k))

    def places(self, span, size, align):
        """All pages in `span` at which a request fits, aligned."""
        return [
            p for p in span
            if p % align == 0 and p + size <= span.stop and all(self.page[q] is None for q in range(p, p + size))
        ]  # fmt: skip

    def alloc(self, size, align=1, *, single=False, pageable=False, nofree=False, who=0):
        """First page, or -1."""
        klass = self.class_of(single, pageable, nofree, who)
        from_top = self.two_ended and klass == SHORT
        at = self.inside(klass, size, align, from_top) if 2 * size <= self.unit else -1
        if at < 0:
            found = self.places(range(self.pages), size, align)
            if not found:
                return -1
            at = found[-1 if from_top else 0]
            for k in {p // self.unit for p in range(at, at + size)}:
                self.klass[k] = MIXED
        self.page[at : at + size] = [Range(who, self.clock)] * size
        self.clock += size
        self.known.setdefault(who, Requester()).entered += 1
        return at

    def inside(self, klass, size, align, from_top):
        """Place a small request in a region: its class's, a free one, another one's."""
        numbers = range(len(self.klass))

        def fullness(k):
            return (-self.taken(k), k)

        own = [k for k in numbers if self.klass[k] == klass]
        others = [k for k in numbers if self.klass[k] not in (klass, FREE)]
        free = [k for k in numbers if self.klass[k] == FREE]
        order = sorted(own, key=fullness) if self.fullest else own
        order += free[::-1] if from_top else free
        order += sorted(others, key=fullness)
        for k in order:
            if found := self.places(self.span(k), size, align):
                if self.klass[k] == FREE:
                    self.klass[k] = klass
                return found[0]
        return -1

    def class_of(self, single, pageable, nofree, who):
        if self.segregate == TOGETHER or single:
            return LONG
        if self.segregate == BY_LIFETIME:
            return LONG if self.outlives(who) else SHORT
        if nofree:
            return LONG
        return WIRED if self.segregate == BY_USE and not pageable else SHORT

    def outlives(self, who):
        known = self.known.get(who, Requester())
        if known.freed == 0 and known.entered >= self.patience:
            return True
        births = [r.born for r in self.page if r is not None and r.who == who]
        estimates = [log(self.clock - sum(births) // len(births))] if births else []
        if known.freed:
            estimates.append(known.mean)
        return bool(estimates) and max(estimates) >= log(self.lifetime)

    def free(self, at, size):
        gone = []
        for p in range(at, at + size):
            if not gone or gone[-1] is not self.page[p]:
                gone.append(self.page[p])
            self.page[p] = None
        for lived in gone:
            known = self.known[lived.who]
            value = log(self.clock - lived.born)
            known.mean = value if known.freed == 0 else known.mean + (value - known.mean) // 8
            known.freed += 1
        for k in {p // self.unit for p in range(at, at + size)}:
            if self.taken(k) == 0:
                self.klass[k] = FREE

    def holes(self):
        found = []
        for p in (p for p in range(self.pages) if self.page[p] is None):
            found.append((found.pop()[0], p + 1) if found and found[-1][1] == p else (p, p + 1))
        return found


def log(n):
    """Logarithm to base 2 in 4096ths, straight between two powers."""
    k = n.bit_length() - 1
    return 4096 * k + int(4096 * (Fraction(n, 2**k) - 1))
