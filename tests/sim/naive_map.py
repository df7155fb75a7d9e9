"""The 2003 vm_map once more, with plain lists, in the words of the reference: what `sim.arenas.vm_map` must equal."""

from dataclasses import dataclass, field

from kmemexp.sim.slots import ATTR_KMEM, ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_ENTRY, NO_SPACE

PAGE = 4096


@dataclass(eq=False)
class Entry:
    start: int
    end: int
    attr: int


@dataclass
class NaiveMap:
    """One map: `first_free` and `hint` are entries, or None for the header."""

    base: int
    top: int
    supply: object
    entries: list[Entry] = field(default_factory=list)
    first_free: Entry | None = None
    hint: Entry | None = None
    walked: int = 0
    high: int = 0

    def alloc(self, nbytes, align, attr):
        below = -1 if self.first_free is None else self.entries.index(self.first_free)
        start = self.base if below < 0 else self.entries[below].end
        while True:
            start = -(-start // align) * align
            if start + nbytes > self.top:
                return NO_SPACE
            if below + 1 == len(self.entries) or self.entries[below + 1].start >= start + nbytes:
                break
            below += 1
            self.walked += 1
            start = self.entries[below].end
        # The insertion looks the address up again, starting at the entry below: it passes that and no other.
        prev = self.entries[below] if below >= 0 else None
        self.hint = prev
        self.walked += prev is not None
        extends = prev is not None and attr == prev.attr == ATTR_PAGEABLE and prev.end == start
        if extends:
            prev.end += nbytes
            self._simplify(prev)
        else:
            if not self.supply.take():
                return NO_ENTRY
            new = Entry(start, start + nbytes, attr)
            self.entries.insert(below + 1, new)
            if self.first_free is prev and (prev is None or prev.end >= start):
                self.first_free = new
            if attr in (ATTR_WIRED, ATTR_KMEM):
                # Wiring looks it up once more: one entry passed, unless the hint is the header and it is the first.
                if prev is not None:
                    self.walked += 1
                    self.hint = new
                self._simplify(new)
        self.high = max(self.high, start + nbytes)
        return start

    def free(self, addr, nbytes):
        stop = addr + nbytes
        entry = self._lookup(addr)
        if entry is not None:
            if entry.start < addr:
                self._simplify(entry)
                if not self.supply.take():
                    return NO_ENTRY
                self.entries.insert(self.entries.index(entry), Entry(entry.start, addr, entry.attr))
                entry.start = addr
            self.hint = self._before(entry)
        at_or_above = [e for e in self.entries if e.end > addr]
        if not at_or_above:
            self.first_free = None
        elif (self.base if self.first_free is None else self.first_free.start) >= addr:
            self.first_free = self._before(at_or_above[0])
        for e in [e for e in at_or_above if e.start < stop]:
            if e.end > stop:
                if not self.supply.take():
                    return NO_ENTRY
                self.entries.insert(self.entries.index(e) + 1, Entry(stop, e.end, e.attr))
                e.end = stop
            self.entries.remove(e)
            self.supply.give()
        return 0

    def _lookup(self, addr):
        """The entry that holds `addr`, or None. Counts and sets the hint as the real lookup."""
        if not self.entries:
            self.hint = None
            return None
        at = self.hint or self.entries[0]
        if at.start <= addr < at.end:
            return at
        i = self.entries.index(at)
        scan = self.entries[i:] if addr >= at.start else self.entries[: i + 1]
        passed = [e for e in scan if e.end <= addr]
        self.walked += len(passed)
        rest = scan[len(passed) :]
        if rest and rest[0].start <= addr:
            self.hint = rest[0]
            return rest[0]
        below = [e for e in self.entries if e.end <= addr]
        self.hint = below[-1] if below else None
        return None

    def _before(self, entry):
        i = self.entries.index(entry)
        return self.entries[i - 1] if i else None

    def _simplify(self, entry):
        if entry.attr == ATTR_SINGLE:
            return
        for step in (-1, 1):
            i = self.entries.index(entry) + step
            other = self.entries[i] if 0 <= i < len(self.entries) else None
            if other is None or other.attr != entry.attr:
                continue
            if (other.end == entry.start) if step < 0 else (other.start == entry.end):
                entry.start, entry.end = min(entry.start, other.start), max(entry.end, other.end)
                self.first_free = entry if self.first_free is other else self.first_free
                self.hint = entry if self.hint is other else self.hint
                self.entries.remove(other)
                self.supply.give()


class FixedSupply:
    """Kmapentzone: `boot` static entries and the KVA for `limit` more."""

    def __init__(self, boot, limit, size=48):
        self.free, self.pages, self.size = boot, 0, size
        self.max_pages = -(-limit * size // PAGE)

    def take(self):
        if self.free <= PAGE // self.size and self.pages < self.max_pages:
            self.pages += 1
            self.free += self.pages * PAGE // self.size - (self.pages - 1) * PAGE // self.size
        if self.free == 0:
            return False
        self.free -= 1
        return True

    def give(self):
        self.free += 1


class ReserveSupply:
    """Mapentzone behind per-CPU reservations, recursive as the real one. `kernel_map` is set by the system."""

    SLOP, STANDING = 32, 8

    def __init__(self, boot, cpus, size=48):
        self.free, self.pages, self.per_page = boot - cpus * self.STANDING, 0, PAGE // size
        self.avail = [0] * cpus
        self.listed = [self.STANDING] * cpus
        self.cpu = self.count = 0

    def take(self):
        assert self.count > 0
        assert self.listed[self.cpu] > 0
        self.count -= 1
        self.listed[self.cpu] -= 1
        return True

    def give(self):
        self.count += 1
        self.listed[self.cpu] += 1

    def reserve(self, cpu, count):
        self.avail[cpu] -= count
        while self.avail[cpu] < 0:
            if not self._zalloc(cpu):
                self.avail[cpu] += count
                return False
            self.listed[cpu] += 1
            self.avail[cpu] += 1
        return True

    def release(self, cpu, count):
        self.avail[cpu] += count
        while self.avail[cpu] > self.SLOP:
            self.avail[cpu] -= 1
            self.listed[cpu] -= 1
            self.free += 1

    def _zalloc(self, cpu):
        if self.free <= self.per_page and self._zget(cpu):
            return True
        if self.free == 0:
            return False
        self.free -= 1
        return True

    def _zget(self, cpu):
        """One page of kernel_map, through the standing reserve; True with an item in hand for the caller."""
        self.cpu, self.count = cpu, 4
        self.avail[cpu] -= 4
        addr = self.kernel_map.alloc(PAGE, 1, ATTR_WIRED)
        self.avail[cpu] += self.count
        if addr < 0:
            return False
        self.pages += 1
        self.free += self.per_page - 1
        self.reserve(cpu, 0)
        return True


class NaiveSystem:
    """Several maps with one supply of entries; map 0 is kernel_map."""

    def __init__(self, ranges, supply):
        self.supply = supply
        self.maps = [NaiveMap(base, top, supply, high=base) for base, top in ranges]
        supply.kernel_map = self.maps[0]

    def alloc(self, m, nbytes, align, attr, cpu):
        return self._with_entries(cpu, lambda: self.maps[m].alloc(nbytes, align, attr))

    def free(self, m, addr, nbytes, cpu):
        return self._with_entries(cpu, lambda: self.maps[m].free(addr, nbytes))

    def _with_entries(self, cpu, operation):
        if isinstance(self.supply, FixedSupply):
            return operation()
        if not self.supply.reserve(cpu, 4):
            return NO_ENTRY
        self.supply.cpu, self.supply.count = cpu, 4
        answer = operation()
        self.supply.release(cpu, self.supply.count)
        return answer
