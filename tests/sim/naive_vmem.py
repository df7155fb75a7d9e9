"""The two vmems once more, with lists of tags, in the words of the reference: what `sim.arenas.vmem*` must equal.

Addresses and sizes are in pages.
"""

from dataclasses import dataclass, field

BEST, FIRST, NEXT, INSTANT = "best", "first", "next", "instant"


@dataclass(eq=False)
class Tag:
    """A tag: span, free, busy or cursor. `note`: what a range in use is for."""

    kind: str
    start: int = 0
    end: int = 0
    note: object = None
    list: int = -1

    @property
    def size(self):
        return self.end - self.start

    def fit(self, pages, align):
        """Lowest aligned address at which `pages` fit, or None."""
        addr = -(-self.start // align) * align
        return addr if addr + pages <= self.end else None


@dataclass(eq=False)
class Segments:
    """Tags of an arena in the order of its list, and its free lists, head first."""

    index: object  # list of a free segment of so many pages
    tags: list = field(default_factory=lambda: [Tag("cursor")])
    lists: dict = field(default_factory=dict)
    hand: int = 0
    walked: int = 0
    high: int = 0

    @property
    def cursor(self):
        return next(t for t in self.tags if t.kind == "cursor")

    @property
    def in_list(self):
        return len(self.tags) - 1

    def near(self, tag, step):
        at = self.tags.index(tag) + step
        return self.tags[at] if 0 <= at < len(self.tags) else None

    def new(self, at, *args):
        tag = Tag(*args)
        self.tags.insert(at, tag)
        self.hand -= 1
        return tag

    def drop(self, tag):
        self.tags.remove(tag)
        self.hand += 1

    def push(self, tag):
        tag.kind, tag.note, tag.list = "free", None, self.index(tag.size)
        self.lists.setdefault(tag.list, []).insert(0, tag)

    def pull(self, tag):
        self.lists[tag.list].remove(tag)

    def busy(self, start):
        return next((t for t in self.tags if t.kind == "busy" and t.start == start), None)

    def use(self, tag, note):
        tag.kind, tag.note = "busy", note
        self.high = max(self.high, tag.end)
        return tag

    def merge(self, tag):
        """Out of use, with its free neighbours."""
        tag.kind = "free"
        for step in (1, -1):
            other = self.near(tag, step)
            if other and other.kind == "free":
                self.pull(other)
                tag.start, tag.end = min(tag.start, other.start), max(tag.end, other.end)
                self.drop(other)
        return tag

    def free_pages(self):
        return sum(t.size for t in self.tags if t.kind == "free")

    def nonempty(self, least):
        return [k for k in sorted(self.lists) if k >= least and self.lists[k]]


# FreeBSD.


def order(pages):
    return pages - 1 if pages <= 32 else pages.bit_length() - 1 + 26


class FreeBsd:
    """Maps with their arenas, kernel_map, the tag zone and the quantum caches."""

    def __init__(self, pages, submaps=(), strategy=BEST, unit=512, cpus=1, cached=(0, 0), bucket=2, direct=False):
        self.unit, self.strategy, self.direct = unit, strategy, direct
        self.pages = pages
        self.sizes = [pages]
        self.taken = {}  # kernel_map: start -> (end, what)
        self.zone, self.per_page, self.zone_pages = 72, 72, 1
        self.reserve = 8 * cpus
        self.arenas = []
        self.cached, self.bucket, self.cpus = cached, bucket, cpus
        self.cache = {}  # (map, cpu, pages): starts
        self.no_tags = self.imports = 0
        self.high = 0
        self._arena()
        if not unit:
            self._whole(self.arenas[0], 0, pages)
        for low, high in submaps:
            self.submap(low, high)

    def submap(self, low, high):
        self._whole(self._arena(), low, high)
        self.sizes.append(high - low)

    def _arena(self):
        self.arenas.append(Segments(order))
        return self.arenas[-1]

    def _whole(self, a, low, high):
        while self.zone < 4:
            self.zone, self.zone_pages = self.zone + 72, self.zone_pages + 1
        self.zone, a.hand, a.high = self.zone - 4, 4, low
        a.new(1, "span", low, high)
        a.push(a.new(2, "free", low, high))

    # The interface.

    def alloc(self, m, pages, align, attr, cpu):
        """Returns the first page, or -1."""
        if m == 0 and attr == 0 and self.unit:
            start = self._claim(pages, align, "single")
            if start >= 0:
                self.high = max(self.high, start + pages)
            return start
        if pages <= self.cached[m > 0]:
            if align > 1:
                return self._xalloc(m, pages, align, (attr, "x"))
            return self._cached(m, pages, attr, cpu)
        return self._xalloc(m, pages, align, (attr,))

    def free(self, m, start, pages, cpu):
        if m == 0 and start in self.taken and self.taken[start][1] == "single":
            del self.taken[start]
            return
        tag = self.arenas[m].busy(start)
        assert tag.size == pages
        if pages <= self.cached[m > 0] and "x" not in tag.note:
            bucket = self.cache.setdefault((m, cpu, pages), [])
            if len(bucket) < self.bucket:
                bucket.append(start)
                tag.note = "cached"
                return
        self._xfree(m, tag)

    def ranges(self, m):
        found = [(t.start, t.end, t.note[0]) for t in self.arenas[m].tags if t.kind == "busy" and t.note != "cached"]
        if m == 0:
            found += [(start, end, 0) for start, (end, what) in self.taken.items() if what == "single"]
        return sorted(found)

    def holes(self, m):
        """Sizes of what one request could have, caches empty and cursor gone."""
        found, run = [], 0
        for t in self.arenas[m].tags:
            if t.kind == "free" or (t.kind == "busy" and t.note == "cached"):
                run += t.size
            elif t.kind != "cursor":
                found.append(run)
                run = 0
        found.append(run)
        if m == 0 and self.unit:
            at = 0
            for start, end in [*sorted((s, e) for s, (e, _) in self.taken.items()), (self.pages, self.pages)]:
                found.append(start - at)
                at = end
        return [n for n in found if n]

    # vmem_xalloc.

    def _xalloc(self, m, pages, align, note, drains=True):
        if not self._fill(m):
            self.no_tags += 1
            return -1
        return self._place(m, pages, align, self.strategy, note, drains)

    def _place(self, m, pages, align, strategy, note, drains):
        a = self.arenas[m]
        if strategy == NEXT:
            return self._next(m, pages, align, note, drains)
        while True:
            tag = self._search(a, pages, align, strategy)
            if tag:
                start = tag.fit(pages, align)
                self._clip(a, tag, start, pages, note)
                return start
            if strategy == FIRST:
                strategy = BEST
            elif not self._fetch(m, pages, align, drains):
                return -1

    def _search(self, a, pages, align, strategy):
        first = order(pages)
        if strategy == FIRST and pages > 32 and pages != 1 << first - 26:
            first += 1
        for k in a.nonempty(first):
            for tag in a.lists[k][:1] if strategy == FIRST else a.lists[k]:
                if tag.fit(pages, align) is not None:
                    return tag
                a.walked += 1
        return None

    def _clip(self, a, tag, start, pages, note):
        a.pull(tag)
        if tag.start < start:
            low = a.new(a.tags.index(tag), "free", tag.start, start)
            tag.start = start
            a.push(low)
        if tag.size > pages:
            busy = a.new(a.tags.index(tag), "busy", start, start + pages)
            tag.start += pages
            a.push(tag)
            a.use(busy, note)
        else:
            a.use(tag, note)

    def _next(self, m, pages, align, note, drains):
        a = self.arenas[m]
        while True:
            at = a.tags.index(a.cursor)
            found = None
            for tag in a.tags[at + 1 :] + a.tags[:at]:
                if tag.kind == "free" and tag.fit(pages, align) is not None:
                    found = tag
                    start = tag.fit(pages, align)
                    self._clip(a, tag, start, pages, note)
                    break
                a.walked += 1
            below, above = a.near(a.cursor, -1), a.near(a.cursor, 1)
            if below and above and below.kind == above.kind == "free" and below.end == above.start:
                a.pull(above)
                a.drop(above)
                below.end = above.end
                if not found and below.fit(pages, align) is not None:
                    found, start = below, below.fit(pages, align)
                    self._clip(a, below, start, pages, note)
            if found:
                a.tags.remove(a.cursor)
                at = a.tags.index(found)
                while at < len(a.tags) and a.tags[at].start < start + pages:
                    at += 1
                a.tags.insert(at if at < len(a.tags) else 0, Tag("cursor"))
                return start
            if not self._fetch(m, pages, align, drains):
                return -1

    def _xfree(self, m, tag):
        a = self.arenas[m]
        a.push(a.merge(tag))
        if a.hand > 32:
            self.zone += a.hand - 32
            a.hand = 32

    def _fetch(self, m, pages, align, drains):
        if m == 0 and self.unit:
            want = pages + (2 * align if align > 1 else 0)
            want = -(-want // self.unit) * self.unit
            start = self._claim(want, self.unit, "import")
            if start >= 0:
                self.imports += 1
                self._add(start, want)
                return True
        if not drains:
            return False
        keys = sorted((k for k in self.cache if k[0] == m), key=lambda k: (k[2], k[1]))
        starts = [start for k in keys for start in self.cache.pop(k)]
        for start in starts:
            self._xfree(m, self.arenas[m].busy(start))
        return bool(starts)

    def _add(self, start, pages):
        a = self.arenas[0]
        last = a.tags[-1]
        if last.kind in ("free", "busy") and last.end == start:
            if last.kind == "free":
                a.pull(last)
                last.end += pages
                a.push(last)
                return
        else:
            a.new(len(a.tags), "span", start, start + pages)
        a.push(a.new(len(a.tags), "free", start, start + pages))

    def _claim(self, pages, align, what):
        """First fit in kernel_map."""
        for low in sorted([0, *(end for end, _ in self.taken.values())]):
            start = -(-low // align) * align
            if start + pages <= self.pages and all(
                start + pages <= s or start >= e for s, (e, _) in self.taken.items()
            ):
                self.taken[start] = (start + pages, what)
                return start
        return -1

    # Tags.

    def _fill(self, m):
        a = self.arenas[m]
        while a.hand < 4:
            if self.zone <= self.reserve and not self._grow():
                return False
            self.zone, a.hand = self.zone - 1, a.hand + 1
        return True

    def _grow(self):
        if not self.direct:
            a = self.arenas[0]
            while a.hand < 4:
                if not self.zone:
                    return False
                self.zone, a.hand = self.zone - 1, a.hand + 1
            if self._place(0, 1, 1, BEST, (1, "x"), True) < 0:
                return False
        self.zone, self.zone_pages = self.zone + self.per_page, self.zone_pages + 1
        return True

    # Quantum caches.

    def _cached(self, m, pages, attr, cpu):
        bucket = self.cache.setdefault((m, cpu, pages), [])
        if not bucket:
            while len(bucket) < self.bucket:
                start = self._xalloc(m, pages, 1, "cached", drains=False)
                if start < 0:
                    break
                bucket.append(start)
        if not bucket:
            return self._xalloc(m, pages, 1, (attr,))
        start = bucket.pop()
        self.arenas[m].busy(start).note = (attr,)
        return start


# illumos.


def highbit(pages):
    return pages.bit_length()


@dataclass(eq=False)
class Slab:
    """A quantum cache's slab: its free ranges, last freed first."""

    start: int
    chunk: int
    chunks: int
    free: list

    @property
    def taken(self):
        return self.chunks - len(self.free)

    @property
    def weight(self):
        b = highbit(self.chunks // 16) + 1
        r = self.taken
        return -r if r <= b or len(self.free) <= b else -(b + (r >> b))


class Illumos:
    """Maps with their arenas, kmem_va and kmem_metadata over the heap, quantum caches, and the tags of all."""

    MARKS = ("import", "metadata", "slab", "oversize")
    METADATA, OVERSIZE = 1 << 20, 1 << 21

    def __init__(self, pages, submaps=(), strategy=INSTANT, cached=8, populators=3, apart=False):
        self.strategy, self.cached, self.apart = strategy, cached, apart
        self.slab_pages = 1 << highbit(3 * cached)
        self.sizes = [pages]
        self.spare, self.pages = 200, 0
        self.batch_pages = 1 if populators <= 4 else 2
        self.batch = self.batch_pages * 4096 // 56
        self.maps = []
        self.kmem_va, self.default, self.metadata, self.seg = (Segments(lambda n: highbit(n) - 1) for _ in range(4))
        self.kmem_metadata, *rest = (Segments(lambda n: highbit(n) - 1) for _ in range(4))
        self.msb, self.oversize, self.firewall = rest
        self.left = 0  # pages of vmem_metadata
        self.fails = 0
        self.slabs = []
        self.tags = dict.fromkeys((self.default, self.metadata, self.seg, *rest), 0)
        for a in (self.metadata, self.seg):
            self._hand(a, 16)
        self.spare -= 16 * (populators - 3)
        self.submap(0, pages)
        self.sizes = [pages]
        for low, high in submaps:
            self.submap(low, high)

    def submap(self, low, high):
        a = Segments(lambda n: highbit(n) - 1)
        while self.spare < 16:
            self.spare, self.pages = self.spare + self.batch, self.pages + self.batch_pages
        self._hand(a, 16)
        a.high = low
        a.new(1, "span", low, high)
        a.push(a.new(2, "free", low, high))
        self.maps.append(a)
        self.sizes.append(high - low)

    # The interface.

    def alloc(self, m, pages, align, attr, _cpu):
        if m == 0 and attr & self.METADATA and self.apart:
            start = self._import(self.kmem_metadata, pages, align, INSTANT, 1) if self._restock(self.msb) else -1
            if start >= 0:
                self._use(self.msb, 2)
            return start
        if m == 0 and attr & self.OVERSIZE and self.apart:
            if not all(self._restock(a) for a in (self.oversize, self.firewall, self.maps[0])):
                return -1
            start = self._place(self.maps[0], pages + 1, align, NEXT, "oversize")
            if start >= 0:
                self._use(self.oversize, 2)
                self._use(self.firewall, 2)
            return start
        attr &= 3
        if m == 0 and attr == 1:
            if not self._restock(self.default):
                return -1
            if pages <= self.cached and align == 1:
                start = self._chunk(pages)
            else:
                start = self._import(self.kmem_va, pages, align, self.strategy, attr)
            if start >= 0:
                self._use(self.default, 2)
            return start
        if not self._restock(self.maps[m]):
            return -1
        return self._place(self.maps[m], pages, align, self.strategy, attr)

    def free(self, m, start, pages, _cpu):
        tag = self.maps[m].busy(start)
        if m or (tag and tag.note not in self.MARKS):
            assert tag.size == pages
            self._xfree(self.maps[m], tag)
            return
        if tag and tag.note == "oversize":
            assert tag.size == pages + 1
            self._xfree(self.maps[0], tag)
            self._use(self.oversize, -2)
            self._use(self.firewall, -2)
            return
        own = self.kmem_metadata.busy(start)
        if own:
            assert own.size == pages
            self._xfree(self.kmem_metadata, own)
            self._use(self.msb, -2)
            return
        self._use(self.default, -2)
        tag = self.kmem_va.busy(start)
        if tag and tag.note != "slab":
            self._xfree(self.kmem_va, tag)
            return
        slab = next(s for s in self.slabs if s.start <= start < s.start + self.slab_pages)
        assert slab.chunk == pages
        slab.free.insert(0, start)
        if not slab.taken:
            self.slabs.remove(slab)
            self._xfree(self.kmem_va, self.kmem_va.busy(slab.start))

    def ranges(self, m):
        """(start, end, attribute); -1: the tail of a slab."""
        found = [
            (t.start, t.end, 1 if t.note in ("metadata", "oversize") else t.note)
            for t in self.maps[m].tags + (self.kmem_va.tags + self.kmem_metadata.tags if m == 0 else [])
            if t.kind == "busy" and t.note not in ("import", "slab")
        ]
        for s in self.slabs if m == 0 else []:
            stop = s.start + s.chunks * s.chunk
            found += [(at, at + s.chunk, 1) for at in range(s.start, stop, s.chunk) if at not in s.free]
            if stop < s.start + self.slab_pages:
                found.append((stop, s.start + self.slab_pages, -1))
        return sorted(found)

    def holes(self, m):
        found, run = [], 0
        for a in [self.maps[m], self.kmem_va, self.kmem_metadata] if m == 0 else [self.maps[m]]:
            for t in a.tags:
                if t.kind == "free":
                    run += t.size
                elif t.kind != "cursor":
                    found.append(run)
                    run = 0
            found.append(run)
            run = 0
        if m == 0:
            found += [s.chunk for s in self.slabs for _ in s.free]
        return [n for n in found if n]

    def entries(self, m):
        if m:
            return self.maps[m].in_list
        return sum(a.in_list for a in (self.maps[0], self.kmem_va, self.kmem_metadata)) + sum(self.tags.values())

    def walked(self, m):
        return self.maps[m].walked + (self.kmem_va.walked + self.kmem_metadata.walked if m == 0 else 0)

    # Segments.

    def _place(self, a, pages, align, strategy, note):
        if strategy == NEXT and align == 1:
            start = self._next(a, pages, note)
            if start >= 0:
                return start
        tag = self._search(a, pages, align, strategy)
        if not tag:
            return -1
        start = tag.fit(pages, align)
        self._take(a, tag, start, pages, note)
        return start

    def _search(self, a, pages, align, strategy):
        own = highbit(pages) - 1
        exact = pages == 1 << own
        higher = a.nonempty(own + 1)
        first = own if exact or not higher or strategy in (BEST, FIRST) else own + 1
        for k in a.nonempty(first):
            best = None
            for tag in a.lists[k]:
                if tag.fit(pages, align) is not None and (best is None or tag.size < best.size):
                    best = tag
                    if strategy != BEST or tag.size == pages:
                        return best
                a.walked += 1
            if best:
                return best
        return None

    def _take(self, a, tag, start, pages, note):
        rest = tag.size - pages
        if start == tag.start and rest and highbit(rest) == highbit(tag.size):
            return self._bump(a, tag, a.tags.index(tag), pages, note)
        a.pull(tag)
        if tag.end > start + pages:
            a.push(a.new(a.tags.index(tag) + 1, "free", start + pages, tag.end))
        if tag.start < start:
            a.push(a.new(a.tags.index(tag), "free", tag.start, start))
        tag.start, tag.end = start, start + pages
        return a.use(tag, note)

    def _bump(self, a, tag, at, pages, note):
        busy = a.new(at, "busy", tag.start, tag.start + pages)
        tag.start += pages
        return a.use(busy, note)

    def _next(self, a, pages, note):
        tag = a.near(a.cursor, 1)
        if tag and tag.kind == "free" and tag.size > pages and highbit(tag.size - pages) == highbit(tag.size):
            return self._bump(a, tag, a.tags.index(a.cursor), pages, note).start
        at = a.tags.index(a.cursor)
        found = None
        for tag in a.tags[at + 1 :] + a.tags[:at]:
            if tag.kind == "free" and tag.size >= pages:
                found = tag
                break
            a.walked += 1
        if not found:
            self._advance(a, a.near(a.cursor, 1))
            found = a.near(a.cursor, -1)
            if not found or found.kind != "free" or found.size < pages:
                return -1
        start = found.start
        self._advance(a, self._take(a, found, start, pages, note))
        return start

    def _advance(self, a, behind):
        """Move the cursor behind a tag (None: to the beginning), and merge what it kept apart."""
        under, above = a.near(a.cursor, -1), a.near(a.cursor, 1)
        cursor = a.cursor
        a.tags.remove(cursor)
        a.tags.insert(a.tags.index(behind) + 1 if behind else 0, cursor)
        merged = None
        if under and under.kind == "free":
            merged = under
            if above and above.kind == "free":
                a.pull(above)
                a.pull(under)
                under.end = above.end
                a.push(under)
                a.drop(above)
        elif above and above.kind == "free":
            merged = above
        if merged and self._whole(a, merged):
            a.pull(merged)
            self._give_back(a, merged)

    def _whole(self, a, tag):
        span, above = a.near(tag, -1), a.near(tag, 1)
        imports = a in (self.kmem_va, self.kmem_metadata)
        return imports and span.kind == "span" and (above is None or above.kind == "span")

    def _give_back(self, a, tag):
        span = a.near(tag, -1)
        a.drop(tag)
        a.drop(span)
        heap = self.maps[0]
        heap.push(heap.merge(heap.busy(tag.start)))

    def _xfree(self, a, tag):
        tag = a.merge(tag)
        if self._whole(a, tag):
            self._give_back(a, tag)
        else:
            a.push(tag)

    # kmem_va.

    def _import(self, a, pages, align, strategy, note):
        if not self._restock(a):
            return -1
        start = self._place(a, pages, align, strategy, note)
        if start >= 0:
            return start
        if not self._restock(self.maps[0]):
            return -1
        want = max(pages + align - 1, 32 if a is self.kmem_metadata else 0)
        base = self._place(self.maps[0], want, 1, INSTANT, "import")
        if base < 0:
            return -1
        a.new(len(a.tags), "span", base, base + want)
        tag = a.new(len(a.tags), "free", base, base + want)
        a.push(tag)
        start = tag.fit(pages, align)
        self._take(a, tag, start, pages, note)
        return start

    def _chunk(self, pages):
        partial = [s for s in self.slabs if s.chunk == pages and s.free]
        if not partial:
            start = self._import(self.kmem_va, self.slab_pages, 1, INSTANT, "slab")
            if start < 0:
                return -1
            n = self.slab_pages // pages
            partial = [Slab(start, pages, n, [start + i * pages for i in reversed(range(n))])]
            self.slabs += partial
        slab = min(partial, key=lambda s: (s.weight, s.start))
        return slab.free.pop(0)

    # Tags.

    def _hand(self, a, least):
        n = max(0, min(least - a.hand, self.spare))
        a.hand, self.spare = a.hand + n, self.spare - n

    def _use(self, a, n):
        a.hand -= n
        self.tags[a] += n

    def _restock(self, a):
        if a.hand >= 16:
            return True
        self._hand(a, 16)
        if a.hand >= 16:
            return True
        if self.left < self.batch_pages:
            if self._place(self.maps[0], 32, 1, INSTANT, "metadata") < 0:
                self.fails += 1
                return False
            self.left += 32
            self._use(self.metadata, 2)
        self.left -= self.batch_pages
        self._use(self.metadata, 1 if self.left else 0)
        self._use(self.seg, 2)
        self.spare, self.pages = self.spare + self.batch, self.pages + self.batch_pages
        for other in (self.maps[0], self.metadata, self.seg):
            self._hand(other, 12)
        self._hand(a, 16)
        return True
