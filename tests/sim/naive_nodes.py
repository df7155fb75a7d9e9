"""A direct map of several NUMA nodes, once more: zones page by page, zonelists, watermarks, a kswapd for each node.

Zones are found by asking every stretch of 4 MiB where it lies; each is a NaiveZone. Nodes are all equally far away.
"""

from math import isqrt

from tests.sim.naive_buddy import NaiveZone
from tests.sim.naive_shared import ATOMIC, FILE, NORMAL, TRY, NaiveShared, dropped

STEP = 1024
DMA, DMA32, HIGHEST = "DMA", "DMA32", "Normal"
RATIO = {DMA: 256, DMA32: 256, HIGHEST: 32}
RANK = [DMA, DMA32, HIGHEST]


def zones_of(pages, nodes, dma, dma32):
    """{(node, kind): [pages]} by address."""
    each = pages // nodes // STEP * STEP
    found = {}
    for page in range(0, pages, STEP):
        node = next(n for n in reversed(range(nodes)) if page >= n * each)
        kind = DMA if page < dma else DMA32 if page < dma32 else HIGHEST
        found.setdefault((node, kind), []).extend(range(page, min(page + STEP, pages)))
    return found


def reserve_of(found, node, kind):
    above = RANK[RANK.index(kind) + 1 :]
    return sum(len(found.get((node, k), ())) for k in above) // RATIO[kind]


def marks_of(found, node, kind, min_free_pages):
    """min, low, high of a zone."""
    whole, own = sum(map(len, found.values())), len(found[node, kind])
    least = min_free_pages * own // whole
    gap = max(least // 4, own // 1000)
    return least, least + gap, least + 2 * gap


def min_free_pages(found):
    """Pages of vm.min_free_kbytes where huge pages are on."""
    whole = sum(map(len, found.values()))
    plain = min(max(isqrt(64 * whole), 128), 262144)
    return max(plain, 4 * min(512 * 11 * len(found), whole // 20)) // 4


def asked_in_turn(found, node, nodes):
    """The zones that a node's CPUs ask, in order."""
    return [(n % nodes, k) for n in range(node, node + nodes) for k in reversed(RANK) if (n % nodes, k) in found]


class NodeZone(NaiveZone):
    def __init__(self, pages, cpus, own_cpus, marks, reserve):
        self.boost, self.marks, self.reserve = 0, marks, reserve
        size = len(pages)
        self.most_boost = max(512, marks[2] * 15000 // 10000) if size >= 2048 else 0
        super().__init__(pages[0], pages[-1] + 1, cpus=cpus)
        for cpu in self.cpus:
            cpu.low = max(marks[1] // own_cpus, 4 * cpu.batch)
            cpu.top = max(size // 8 // own_cpus, 4 * cpu.batch)

    @property
    def wmark(self):
        return self.marks[2] + self.boost + self.reserve

    @wmark.setter
    def wmark(self, value):
        """The zone's own rule does not count here."""

    def _spoils(self):
        self.boost = min(self.boost + 512, self.most_boost)

    @property
    def free_pages(self):
        return sum(1 << o for o in self.orders.values())

    def above(self, order, mark):
        fits = order == 0 or any(o >= order for o in self.orders.values())
        return fits and self.free_pages - (1 << order) + 1 > mark + self.boost + self.reserve


class NaiveNodes(NaiveShared):
    """Owners as NaiveShared has them; all else by node."""

    def __init__(self, pages, nodes, cpus, dma, dma32, kswapd_batch, skip=True):
        found = zones_of(pages, nodes, dma, dma32)
        least = min_free_pages(found)
        self.cpu_node = [c * nodes // cpus for c in range(cpus)]
        self.zones = {
            (n, k): NodeZone(own, cpus, self.cpu_node.count(n), marks_of(found, n, k, least), reserve_of(found, n, k))
            for (n, k), own in found.items()
        }
        self.turns = [asked_in_turn(found, n, nodes) for n in range(nodes)]
        self.home = {page: key for key, own in found.items() for page in own}
        self.nodes, self.kswapd_batch, self.skip = range(nodes), kswapd_batch, skip
        self.running = [False] * nodes
        self.priority, self.left = [12] * nodes, [0] * nodes
        self.lists = [[] for _ in self.nodes]  # (page, owner) of files, oldest first
        self.owners, self.number = {}, 0
        self.stalls = self.by_kswapd = self.by_request = self.drained = 0
        self.rounds = [[0] * 13 for _ in self.nodes]
        self.hits, self.misses, self.foreign = ([0] * nodes for _ in range(3))
        self.block = 9

    # What NaiveShared asks of its one zone.

    class Files:
        def __init__(self, outer):
            self.outer = outer

        def append(self, entry):
            self.outer.lists[self.outer.home[entry[0]][0]].append(entry)

        def remove(self, entry):
            self.outer.lists[self.outer.home[entry[0]][0]].remove(entry)

    @property
    def files(self):
        return self.Files(self)

    class Movable:
        def __init__(self, outer):
            self.outer = outer

        def update(self, pages):
            self.outer.zone(pages[0]).movable.update(pages)

        def __sub__(self, pages):
            self.outer.zone(min(pages)).movable -= pages
            return self

    @property
    def movable(self):
        return self.Movable(self)

    @movable.setter
    def movable(self, value):
        """Each zone has its own."""

    def zone(self, page):
        return self.zones[self.home[page]]

    @property
    def cpus(self):
        return self.cpu_node

    def _give_cpu(self, page, order, cpu_node):
        raise AssertionError("asked of a zone")

    def _drop(self, page, name, cpu):
        order = self.owners[name][1].pop(page)
        if self.owners[name][0] == FILE:
            self.files.remove((page, name))
        return dropped(self.zone(page), page, order, cpu)

    def kernel(self, pages, cpu, klass=NORMAL, reclaimable=False):
        order = max(pages - 1, 0).bit_length()
        page = self.get(order, 2 if reclaimable else 0, klass, cpu)
        if page >= 0:
            zone = self.zone(page)
            for rest in range(page + pages, page + (1 << order)):
                zone._give(rest, 0, to_tail=True)
            zone.live[page] = (pages, pages == 1 << order, 1)
        return page

    def release(self, page, cpu):
        self.zone(page).release(page, cpu)

    # The gate.

    def get(self, order, kind, klass, cpu):
        for n in self.nodes:
            if self.running[n]:
                self._kswapd_of(n)
        own = self.cpu_node[cpu]
        first = self.turns[own][0]
        spare = first[1] == HIGHEST and (own, DMA32) in self.zones
        page = self._walk(order, kind, cpu, "low", spare)
        if page < 0:
            page = self._slowly(order, kind, klass, cpu)
        for n in self.nodes:
            if self._boosted(n):
                self._wake_node(n, 0)
        return page

    def _mark(self, zone, klass):
        least = zone.marks[0]
        if klass == "low":
            return zone.marks[1]
        if klass == ATOMIC:
            least -= least // 2
            least -= least // 4
        return least

    def _walk(self, order, kind, cpu, klass, spare):
        own = self.cpu_node[cpu]
        for skip in (True, False) if self.skip and len(self.nodes) > 1 else (False,):
            passed = False
            for spoil in (False, True) if spare else (True,):
                for node, what in self.turns[own]:
                    if not spoil and node != own:
                        spare = False
                        break
                    if skip and self.running[node]:
                        passed = True
                        continue
                    zone = self.zones[node, what]
                    page = zone._pass(order, kind, cpu, spoil) if zone.above(order, self._mark(zone, klass)) else -1
                    if page >= 0:
                        self.hits[node] += node == own
                        self.misses[node] += node != own
                        self.foreign[own] += node != own
                        return page
            if not passed:
                break
        return -1

    def _slowly(self, order, kind, klass, cpu):
        if klass != TRY:
            own = self.cpu_node[cpu]
            for n in self.nodes:
                self._wake_node((own + n) % len(self.nodes), order)
        page = self._walk(order, kind, cpu, klass, False)
        if page >= 0 or klass != NORMAL:
            return page
        self.stalls += 1
        while page < 0 and self._reclaim(cpu):
            page = self._walk(order, kind, cpu, klass, False)
            if page < 0 and sum(zone._drain() for zone in self.zones.values()):
                self.drained += 1
                page = self._walk(order, kind, cpu, klass, False)
            if order > 3:
                break
        return page

    # Reclaim.

    def _boosted(self, node):
        return any(zone.boost for (n, _), zone in self.zones.items() if n == node)

    def _balanced(self, node, order):
        return any(zone.above(order, zone.marks[2]) for (n, _), zone in self.zones.items() if n == node)

    def _set(self, node, running):
        self.running[node] = running
        for (n, _), zone in self.zones.items():
            if n == node:
                zone.reclaiming = running

    def _wake_node(self, node, order):
        if not self.running[node] and (self._boosted(node) or not self._balanced(node, order)):
            self._set(node, running=True)
            self.priority[node], self.left[node] = 12, 0

    def _pages_on(self, node):
        return sum(1 << self.owners[name][1][page] for page, name in self.lists[node])

    def _shrink_node(self, node, want, cpu):
        got = 0
        while got < want and self.lists[node]:
            page, name = self.lists[node][0]
            got += self._drop(page, name, cpu)
            if not self.owners[name][1] and name != self.number:
                del self.owners[name]
        return got

    def _reclaim(self, cpu):
        got, own = 0, self.cpu_node[cpu]
        for priority in range(12, -1, -1):
            for n in self.nodes:
                node = (own + n) % len(self.nodes)
                self.rounds[node][priority] += 1
                want = self._pages_on(node) >> priority
                got += self._shrink_node(node, want if priority == 12 else min(want, 32), cpu)
            if got >= 32:
                break
        self.by_request += got
        return got

    def _kswapd_of(self, node):
        left = self.kswapd_batch
        high = sum(max(zone.marks[2], 32) for (n, _), zone in self.zones.items() if n == node)
        last = len(self.cpu_node) - 1 - self.cpu_node[::-1].index(node)
        while left > 0:
            if self._balanced(node, 0):
                self._set(node, running=False)
                for (n, _), zone in self.zones.items():
                    if n == node:
                        zone.boost = 0
                return
            while self.left[node] == 0:
                if self.priority[node] < 1:
                    self._set(node, running=False)
                    return
                self.rounds[node][self.priority[node]] += 1
                self.left[node] = self._pages_on(node) >> self.priority[node]
                if self.left[node] < high:
                    self.priority[node] -= 1
            got = self._shrink_node(node, min(left, self.left[node]), last)
            self.by_kswapd += got
            self.left[node] = max(self.left[node] - got, 0) if got else 0
            left -= got
