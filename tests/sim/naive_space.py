"""Maps that count upwards, for the naive twins and the tests that hold allocators against them."""


class BumpMap:
    """Fresh pages in ascending order up to a limit."""

    def __init__(self, limit: int) -> None:
        self.next, self.limit = 0, limit

    def take(self, nbytes: int) -> int | None:
        if self.next + nbytes > self.limit:
            return None
        self.next += nbytes
        return self.next - nbytes


class LoggedMap(BumpMap):
    """The same, and `log` lists what was asked of it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.log: list[tuple[str, int, int]] = []

    def take(self, nbytes: int) -> int | None:
        base = super().take(nbytes)
        if base is not None:
            self.log.append(("alloc", base, nbytes))
        return base

    def give(self, base: int, nbytes: int) -> None:
        self.log.append(("free", base, nbytes))


class UpwardMap:
    """A map that counts upwards from `next` to `limit`; `log` lists what was asked of it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.next = limit, 0
        self.held: dict[int, int] = {}
        self.log: list[tuple[str, int, int]] = []

    def take(self, size: int, align: int) -> int:
        base = -(-self.next // align) * align
        if base + size > self.limit:
            return -1
        self.next = base + size
        self.held[base] = size
        self.log.append(("alloc", base, size))
        return base

    def give(self, base: int, size: int | None = None) -> None:
        """Take back what was held from `base` on, all of it."""
        assert size in (None, self.held[base])
        self.log.append(("free", base, self.held.pop(base)))

    def top(self) -> int:
        """End of the highest range that is held."""
        return max((base + size for base, size in self.held.items()), default=0)


PAGE = 4096


class WholePages:
    """What naive allocators do with requests of whole pages: `oversize` is the size of each block by its address."""

    map: UpwardMap
    oversize: dict[int, int]
    queued: list[list[int]]  # by CPU: those that an interrupt has freed

    def take_pages(self, nbytes: int) -> tuple[int, int]:
        """Address and granted bytes, (-1, 0) without memory."""
        size = -(-nbytes // PAGE) * PAGE
        base = self.map.take(size, PAGE)
        if base < 0:
            return -1, 0
        self.oversize[base] = size
        return base, size

    def gave_pages(self, addr: int, cpu: int, *, interrupt: bool) -> bool:
        """Whether this was such a block, or none at all, and has gone back or waits for it."""
        if addr in self.oversize:
            del self.oversize[addr]
            if interrupt:
                self.queued[cpu].append(addr)
            else:
                self.map.give(addr)
            return True
        return addr == -8
