"""A zone that others share with the kernel, once more: watermarks, kswapd, direct reclaim, in lists and dicts."""

from kmemexp.sim.arenas.buddy.index import min_free_with_huge_pages, most_boost, pcp_high, watermarks
from tests.sim.naive_buddy import MOVABLE, RECLAIMABLE, UNMOVABLE, NaiveZone, order_of

ANON, FILE, KERNEL = range(3)
NORMAL, ATOMIC, TRY = range(3)


def dropped(zone, page, order, cpu):
    """Give an owner's block back to its zone, by the CPU's list where that has such. Returns its pages."""
    zone.movable -= set(range(page, page + (1 << order)))
    if order <= 3 or order == zone.block:
        zone._give_cpu(page, order, zone.cpus[cpu])
    else:
        zone._give(page, order)
    return 1 << order


class NaiveShared(NaiveZone):
    def __init__(self, pages, cpus, kswapd_batch):
        self.boost = 0
        least = min_free_with_huge_pages(pages, 3)
        self.marks = watermarks(pages, least)
        self.most_boost = most_boost(pages, self.marks.high)
        super().__init__(0, pages, cpus=cpus)
        for cpu in self.cpus:
            cpu.low, cpu.top = pcp_high(pages, cpus, least)
        self.kswapd_batch = kswapd_batch
        self.files = []  # (page, owner), oldest first
        self.owners = {}  # name: [sort, {page: order}]
        self.number = 0
        self.stalls = self.by_kswapd = self.by_request = 0
        self.rounds = [0] * 13

    @property
    def wmark(self):
        return self.marks.high + self.boost

    @wmark.setter
    def wmark(self, value):
        """The zone's own rule does not count here."""

    def _spoils(self):
        self.boost = min(self.boost + 512, self.most_boost)

    # Owners.

    def spread(self, pages, sort, largest, cpu, klass=NORMAL):
        """A new owner with so many pages, or None."""
        self.number += 1
        name, blocks, window, folio, at = self.number, {}, 4, 0, 0
        self.owners[name] = [sort, blocks]
        while at < pages:
            stop, most = pages, largest
            if sort == FILE:
                if at:
                    folio += 2
                    window = min(2 * window, 32)
                    if (rounded := (at + window) // 2**folio * 2**folio) > at:
                        window = rounded - at
                folio = min(largest, folio, window.bit_length() - 1)
                stop, most = min(pages, at + window), folio
            while at < stop:
                order = most
                while order and (at % (1 << order) or at + (1 << order) > stop):
                    order -= 1
                kind = UNMOVABLE if sort == KERNEL else MOVABLE
                page = self.get(order, kind, TRY if order else klass, cpu)
                if page >= 0:
                    blocks[page] = order
                    if sort == FILE:
                        self.files.append((page, name))
                    if sort != KERNEL:
                        self.movable.update(range(page, page + (1 << order)))
                    at += 1 << order
                elif order:
                    most = 0
                else:
                    self.end(name, cpu)
                    return None
        if not blocks:
            del self.owners[name]
        return name

    def end(self, name, cpu):
        if name in self.owners:
            for page in reversed(list(self.owners[name][1])):
                self._drop(page, name, cpu)
            del self.owners[name]

    def _drop(self, page, name, cpu):
        order = self.owners[name][1].pop(page)
        if self.owners[name][0] == FILE:
            self.files.remove((page, name))
        return dropped(self, page, order, cpu)

    # The kernel.

    def kernel(self, pages, cpu, klass=NORMAL, reclaimable=False):
        order = order_of(pages)
        page = self.get(order, RECLAIMABLE if reclaimable else UNMOVABLE, klass, cpu)
        if page >= 0:
            for rest in range(page + pages, page + (1 << order)):
                self._give(rest, 0, to_tail=True)
            self.live[page] = (pages, pages == 1 << order, 1)
        return page

    # The gate.

    @property
    def free_pages(self):
        return sum(1 << o for o in self.orders.values())

    def get(self, order, kind, klass, cpu):
        if self.reclaiming:
            self._kswapd()
        page = self._above(order, kind, cpu, self.marks.low, spoil=False)
        if page < 0:
            page = self._above(order, kind, cpu, self.marks.low, spoil=True)
        if page < 0:
            page = self._slowly(order, kind, klass, cpu)
        if self.boost:
            self._wake()
        return page

    def _above(self, order, kind, cpu, mark, spoil):
        if self.free_pages - (1 << order) + 1 <= mark + self.boost:
            return -1
        if order and not any(o >= order for o in self.orders.values()):
            return -1
        return self._pass(order, kind, cpu, spoil)

    def _slowly(self, order, kind, klass, cpu):
        mark = self.marks.minimum
        if klass == ATOMIC:
            mark -= mark // 2
            mark -= mark // 4
        if klass != TRY:
            self._wake()
        page = self._above(order, kind, cpu, mark, spoil=True)
        if page >= 0 or klass != NORMAL:
            return page
        self.stalls += 1
        while page < 0 and self._reclaim(cpu):
            page = self._above(order, kind, cpu, mark, spoil=True)
            if page < 0 and self._drain():
                self.drains += 1
                page = self._above(order, kind, cpu, mark, spoil=True)
            if order > 3:
                break
        return page

    # Reclaim.

    def _shrink(self, want, cpu):
        got = 0
        while got < want and self.files:
            page, name = self.files[0]
            got += self._drop(page, name, cpu)
            if not self.owners[name][1] and name != self.number:
                del self.owners[name]
        return got

    def _file_pages(self):
        return sum(1 << o for sort, blocks in self.owners.values() if sort == FILE for o in blocks.values())

    def _reclaim(self, cpu):
        got = 0
        for priority in range(12, -1, -1):
            self.rounds[priority] += 1
            want = self._file_pages() >> priority
            got += self._shrink(want if priority == 12 else min(want, 32), cpu)
            if got >= 32:
                break
        self.by_request += got
        return got

    def _wake(self):
        if not self.reclaiming:
            self.reclaiming, self.priority, self.left = True, 12, 0

    def _kswapd(self):
        left = self.kswapd_batch
        while left > 0:
            if self.free_pages > self.wmark:
                self.reclaiming, self.boost = False, 0
                return
            while self.left == 0:
                if self.priority < 1:
                    self.reclaiming = False
                    return
                self.rounds[self.priority] += 1
                self.left = self._file_pages() >> self.priority
                if self.left < max(self.marks.high, 32):
                    self.priority -= 1
            got = self._shrink(min(left, self.left), len(self.cpus) - 1)
            self.by_kswapd += got
            self.left = max(self.left - got, 0) if got else 0
            left -= got
