"""Linux's page allocator once more, with lists, dicts and sets, in the words of the reference; and the plain buddy.

Pages are numbers; a range is asked for in pages. What `sim.arenas.buddy` must equal.
"""

from dataclasses import dataclass, field

from kmemexp.sim.arenas.buddy.index import pcp_batch, pcp_high, watermarks
from kmemexp.sim.slots import ATTR_SINGLE

UNMOVABLE, MOVABLE, RECLAIMABLE = range(3)
FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}


def order_of(pages):
    return max(pages - 1, 0).bit_length()


@dataclass
class Cpu:
    """A CPU's page lists, head first; a list's key is (order, type); for pageblocks there are two."""

    low: int
    top: int
    batch: int
    keys: list
    high: int = 0
    factor: int = 0
    freed: int = 0
    was_order: bool = False
    lists: dict = field(default_factory=dict)

    def __post_init__(self):
        self.lists = {k: [] for k in self.keys}

    @property
    def count(self):
        return sum(len(pages) << order for (order, _), pages in self.lists.items())


class NaiveZone:
    def __init__(self, base, top, max_order=10, pageblock_order=9, pcp=True, migrate=True, cpus=1):
        self.base, self.top, self.max_order = base, top, max_order
        self.block = min(pageblock_order, max_order)
        self.pcp, self.migrate = pcp, migrate
        kind = MOVABLE if migrate else UNMOVABLE
        self.types = dict.fromkeys(range(base >> self.block, (top - 1 >> self.block) + 1), kind)
        self.free = {(o, t): [] for o in range(max_order + 1) for t in range(3)}
        self.orders = {}  # free block: its order
        self.live = {}  # first page: (pages, whole block, attribute)
        self.movable = set()
        self.below = self.reclaiming = False
        self.wmark = watermarks(top - base).high
        self.claims = self.steals = self.drains = 0
        keys = [(o, t) for o in range(4) for t in range(3)] + [(self.block, "kernel"), (self.block, "movable")]
        self.cpus = [Cpu(*pcp_high(top - base, cpus), pcp_batch(top - base), keys) for _ in range(cpus)]
        page = base
        while page < top:
            order = max(o for o in range(max_order + 1) if page % (1 << o) == 0 and page + (1 << o) <= top)
            self._insert(page, order, kind, at_tail=True)
            page += 1 << order

    # The interface.

    def alloc(self, pages, align, movable, cpu, attr):
        """Returns the first page, or -1."""
        kind = MOVABLE if movable and self.migrate else UNMOVABLE
        order = order_of(max(pages, align))
        if order > self.max_order:
            page, size = self._contiguous(pages, align, submap=attr == ATTR_SINGLE), pages
        else:
            size = 1 << order
            page = self._two_passes(order, kind, cpu)
            if page < 0 and self._drain():
                self.drains += 1
                page = self._pass(order, kind, cpu, spoil=True)
        if page < 0:
            return -1
        for rest in range(page + pages, page + size):
            self._give(rest, 0, to_tail=True)
        self.live[page] = (pages, size == pages and order <= self.max_order, attr)
        if movable:
            self.movable.update(range(page, page + pages))
        return page

    def release(self, page, cpu):
        pages, whole, _ = self.live.pop(page)
        self.movable -= set(range(page, page + pages))
        step = pages if whole else 1
        for at in range(page, page + pages, step):
            order = order_of(step)
            if self.pcp and (order <= 3 or order == self.block):
                self._give_cpu(at, order, self.cpus[cpu])
            else:
                for part in range(at, at + step, min(step, 1 << self.block)):
                    self._give(part, min(order, self.block))

    # The zone.

    def _type(self, page):
        return self.types[page >> self.block]

    def _retype(self, page, order, kind):
        for b in range(page >> self.block, (page + (1 << order)) >> self.block):
            self.types[b] = kind

    def _insert(self, page, order, kind, at_tail=False):
        self.free[order, kind].insert(len(self.free[order, kind]) if at_tail else 0, page)
        self.orders[page] = order

    def _remove(self, page):
        order = self.orders.pop(page)
        self.free[order, self._type(page)].remove(page)
        return order

    def _give(self, page, order, to_tail=False):
        kind = self._type(page)
        while order < self.max_order and self.orders.get(page ^ (1 << order)) == order:
            buddy = page ^ (1 << order)
            self._remove(buddy)
            if order >= self.block:
                self._retype(buddy, order, kind)
            page, order = min(page, buddy), order + 1
        if order + 1 < self.max_order:
            pair = page - page % (2 << order)
            to_tail = to_tail or self.orders.get(pair ^ (2 << order)) == order + 1
        self._insert(page, order, kind, to_tail)

    def _cut(self, page, order, kind):
        """Take a free block and keep its first 2**order pages."""
        size = self._remove(page)
        for o in range(size - 1, order - 1, -1):
            self._insert(page + (1 << o), o, kind)
        return page

    def _own(self, order, kind):
        for o in range(order, self.max_order + 1):
            if self.free[o, kind]:
                return self._cut(self.free[o, kind][0], order, kind)
        return -1

    def _other(self, order, kind):
        return next((t for t in FALLBACKS[kind] if self.free[order, t]), None)

    def _claim(self, order, kind, spoil):
        for o in range(self.max_order, (order if spoil else max(order, self.block)) - 1, -1):
            if o < self.block // 2 and kind == MOVABLE:
                return -1
            other = self._other(o, kind)
            if other is None:
                continue
            page = self.free[o, other][0]
            if o >= self.block:
                self.claims += 1
                self._remove(page)
                self._retype(page, o, kind)
                self._insert(page, o, kind)
                return self._cut(page, order, kind)
            start = page >> self.block << self.block
            inside = range(start, start + (1 << self.block))
            self._spoils()
            if inside.start < self.base or inside.stop > self.top:
                continue
            free = {p: self.orders[p] for p in inside if p in self.orders}
            empty = sum(1 << n for n in free.values())
            movable = len(self.movable.intersection(inside))
            alike = movable if kind == MOVABLE else len(inside) - empty - movable if other == MOVABLE else 0
            if 2 * (empty + alike) >= len(inside):
                self.claims += 1
                for p, n in free.items():
                    self.free[n, other].remove(p)
                    self.free[n, kind].append(p)
                self._retype(start, self.block, kind)
                return self._own(order, kind)
        return -1

    def _spoils(self):
        """A pageblock may be spoiled."""

    def _steal(self, order, kind):
        for o in range(order, self.max_order + 1):
            other = self._other(o, kind)
            if other is not None:
                self.steals += 1
                return self._cut(self.free[o, other][0], order, other)
        return -1

    def _from_zone(self, order, kind, spoil, only_steal=False):
        """(page, whether it was stolen)."""
        page = -1
        if not only_steal:
            page = self._own(order, kind)
            if page < 0 and self.migrate:
                page = self._claim(order, kind, spoil)
        if page >= 0 or not (spoil and self.migrate):
            return page, False
        page = self._steal(order, kind)
        return page, page >= 0 or only_steal

    def _two_passes(self, order, kind, cpu):
        page = self._pass(order, kind, cpu, spoil=False)
        return self._pass(order, kind, cpu, spoil=True) if page < 0 and self.migrate else page

    def _pass(self, order, kind, cpu, spoil):
        free = sum(1 << o for o in self.orders.values())
        enough = free - (1 << order) + 1 > self.wmark
        fits = any(o >= order for o in self.orders.values())
        if not (enough and (fits or order == 0)):
            self.below = True
        page = -1
        if self.pcp and (order <= 3 or order == self.block):
            page = self._take_cpu(order, kind, self.cpus[cpu], spoil)
        return self._from_zone(order, kind, spoil)[0] if page < 0 else page

    def _contiguous(self, pages, align, submap):
        """First page of a range of largest blocks, else, for a submap, of any free pages; -1."""
        self._drain()
        size = 1 << self.max_order
        want = -(-pages // size) * size
        step = max(size, align)
        for page in range(-(-self.base // step) * step, self.top - want + 1, step):
            if all(self.orders.get(b) == self.max_order for b in range(page, page + want, size)):
                return self._cut_out(page, pages)
        free = {p for b, o in self.orders.items() for p in range(b, b + (1 << o))}
        for page in range(-(-self.base // align) * align, self.top - pages + 1, align):
            if submap and page in free and free.issuperset(range(page, page + pages)):
                return self._cut_out(page, pages)
        return -1

    def _cut_out(self, page, pages):
        wanted = set(range(page, page + pages))
        for block, order in sorted(self.orders.items()):
            inside = range(block, block + (1 << order))
            if wanted.isdisjoint(inside):
                continue
            self._remove(block)
            if self.migrate and order == self.max_order:
                self._retype(block, order, MOVABLE)
            for p in inside:
                if p not in wanted:
                    self._give(p, 0, to_tail=True)
        return page

    # The CPUs' lists.

    def _key(self, order, kind):
        return (order, kind) if order <= 3 else (order, "movable" if kind == MOVABLE else "kernel")

    def _take_cpu(self, order, kind, cpu, spoil):
        cpu.freed //= 2
        pages = cpu.lists[self._key(order, kind)]
        if not pages:
            stolen = False
            for _ in range(self._refill(order, cpu)):
                page, stolen = self._from_zone(order, kind, spoil, stolen)
                if page < 0:
                    break
                pages.append(page)
        return pages.pop(0) if pages else -1

    def _refill(self, order, cpu):
        cpu.high = min(max(cpu.high, cpu.low), cpu.top)
        if cpu.high < cpu.batch:
            return 1
        batch = cpu.batch if order else cpu.batch * 2**cpu.factor
        if cpu.low != cpu.top and not self.below:
            cpu.high = min(cpu.high + batch, cpu.top)
        if order == 0:
            room = max(cpu.high - cpu.count - cpu.batch, cpu.batch)
            if batch <= room:
                cpu.factor = min(cpu.factor + 1, 5)
            batch = min(batch, room)
        return max(batch // 2**order, 2) if batch > 1 else batch

    def _give_cpu(self, page, order, cpu):
        key = self._key(order, self._type(page))
        cpu.factor //= 2
        cpu.lists[key].insert(0, page)
        small = 0 < order <= 3
        burst = small and cpu.was_order and cpu.freed >= cpu.batch and cpu.count >= cpu.batch
        cpu.was_order = small
        if cpu.freed < 32 * cpu.batch:
            cpu.freed += 1 << order
        cpu.high = min(max(cpu.high, cpu.low), cpu.top)
        limit = cpu.high
        if burst:
            limit = 0
            cpu.high = max(cpu.high - 32 * cpu.batch, cpu.low)
        elif cpu.low != cpu.top and self.reclaiming:
            cpu.high = max(cpu.high - max(cpu.freed, cpu.batch), cpu.low)
            limit = min(4 * cpu.batch, cpu.high)
        elif cpu.low != cpu.top and self.below:
            cpu.high = max(cpu.high - max(cpu.freed, cpu.batch), cpu.low)
            limit = max(cpu.count, cpu.low)
        elif cpu.low != cpu.top and cpu.count >= cpu.high:
            cpu.high = max(cpu.high, min(cpu.freed + cpu.batch, cpu.top))
        if cpu.count < limit:
            return
        if burst:
            back = 32 * cpu.batch
        elif limit < cpu.batch:
            back = 1
        else:
            back = min(max(cpu.freed, cpu.batch), limit - cpu.batch)
        self._give_back(cpu, back, key)
        if sum(1 << o for o in self.orders.values()) > self.wmark:
            self.below = False

    def _give_back(self, cpu, pages, key):
        at = cpu.keys.index(key)
        while pages > 0 and cpu.count:
            key = cpu.keys[at % len(cpu.keys)]
            while pages > 0 and cpu.lists[key]:
                page = cpu.lists[key].pop()
                pages -= 1 << key[0]
                self._give(page, key[0])
            at += 1

    def _drain(self):
        had = sum(cpu.count for cpu in self.cpus)
        for cpu in self.cpus:
            while cpu.count:
                self._give_back(cpu, 32 * cpu.batch, cpu.keys[0])
        return had


class PlainBuddy:
    """A textbook buddy over [base, top), without any structure but the set of pages in use."""

    def __init__(self, base, top, max_order):
        self.base, self.top, self.max_order = base, top, max_order
        self.live = {}

    def blocks(self):
        """Largest free blocks, {first page: order}."""
        taken = {p for first, n in self.live.items() for p in range(first, first + n)}
        found, page = {}, self.base
        while page < self.top:
            if page in taken:
                page += 1
                continue
            order = 0
            while order < self.max_order and page % (2 << order) == 0 and page + (2 << order) <= self.top:
                if not taken.isdisjoint(range(page, page + (2 << order))):
                    break
                order += 1
            found[page] = order
            page += 1 << order
        return found

    def alloc(self, pages, align, submap=False):
        order = order_of(max(pages, align))
        free = self.blocks()
        if order > self.max_order:
            step = max(1 << self.max_order, align)
            want = -(-pages // (1 << self.max_order))
            fits = [
                p
                for p in range(-(-self.base // step) * step, self.top, step)
                if all(free.get(p + (i << self.max_order)) == self.max_order for i in range(want))
            ]
            if submap and not fits:
                taken = {p for first, n in self.live.items() for p in range(first, first + n)}
                starts = range(-(-self.base // align) * align, self.top - pages + 1, align)
                fits = [p for p in starts if taken.isdisjoint(range(p, p + pages))]
        else:
            least = min((o for o in free.values() if o >= order), default=None)
            fits = [p for p, o in free.items() if o == least]
        if not fits:
            return -1
        self.live[min(fits)] = pages
        return min(fits)

    def release(self, page):
        del self.live[page]
