"""The three FreeBSD 4 allocators once more, with lists and dicts, over a map that only counts upwards.

Written from the description of the real code, not from the kernels, so that the two check each other.
"""

from types import ModuleType, SimpleNamespace

from naive_space import BumpMap

PAGE = 4096


class NaiveMalloc:
    """Power-of-two buckets; the head of a free list is its element 0."""

    def __init__(self, limit: int, fifo: bool = False) -> None:
        self.map, self.fifo = BumpMap(limit), fifo
        self.lists: dict[int, list[int]] = {16 << k: [] for k in range(10)}
        self.page_size: dict[int, int] = {}
        self.live: dict[int, int] = {}
        self.could_free = 0

    def alloc(self, size: int) -> int | None:
        if size > 8192:
            granted = -(-size // PAGE) * PAGE
            addr = self.map.take(granted)
        else:
            granted = 16
            while granted < size:
                granted *= 2
            chunks = self.lists[granted]
            if not chunks:
                page = self.map.take(max(granted, PAGE))
                if page is None:
                    return None
                self.page_size[page // PAGE] = granted
                chunks[:] = reversed(range(page, page + max(granted, PAGE), granted))
            addr = chunks.pop(0)
        if addr is not None:
            self.live[addr] = granted
        return addr

    def free(self, addr: int) -> None:
        size = self.live.pop(addr)
        if size > 8192:
            return
        chunks = self.lists[size]
        pieces = max(PAGE // size, 1)
        whole = sum(c // PAGE == addr // PAGE for c in chunks) + 1 == pieces
        self.could_free += whole and len(chunks) > 5 * pieces
        chunks.insert(len(chunks) if self.fifo else 0, addr)


class NaiveZone:
    """One zone; the head of the free list is the last element. `base` is the KVA of an interrupt zone."""

    def __init__(self, pages: BumpMap, size: int, growth: int, limit: int, base: int) -> None:
        self.map, self.base = pages, base
        self.size = -(-size // 32) * 32
        self.growth = max(growth, 1, -(-self.size // PAGE))
        self.free_min = max(PAGE // self.size, 1)
        self.room = -(-self.size * limit // PAGE) * PAGE  # bytes of KVA set aside
        self.interrupt = limit > 0
        self.wired = self.made = self.pages = 0
        self.chunks: list[int] = []
        self.live: set[int] = set()

    def alloc(self) -> int | None:
        new = [] if len(self.chunks) > self.free_min else self._grow()
        if not new and not self.chunks:
            return None
        self.chunks += new
        addr = self.chunks.pop()
        self.live.add(addr)
        return addr

    def free(self, addr: int) -> None:
        self.live.remove(addr)
        self.chunks.append(addr)

    def _grow(self) -> list[int]:
        if self.interrupt:
            grown = min(self.growth * PAGE, self.room - self.wired)
            self.wired += grown
            self.pages += grown // PAGE
            already, self.made = self.made, self.wired // self.size
            return [self.base + k * self.size for k in range(already, self.made)]
        page = self.map.take(self.growth * PAGE)
        if page is None:
            return []
        items = self.growth * PAGE // self.size
        self.made += items
        self.pages += self.growth
        return [page + k * self.size for k in range(items)]


class NaiveMbufs:
    """Lists of mbufs and clusters, the head last; a long request is a list of clusters."""

    def __init__(self, limit: int) -> None:
        self.map, self.full = BumpMap(limit), False
        self.lists: dict[int, list[int]] = {256: [], 2048: []}
        self.live: dict[int, tuple[int, list[int]]] = {}

    def alloc(self, size: int) -> int | None:
        piece = 256 if size <= 256 else 2048
        wanted = max(-(-size // piece), 1)
        got: list[int] = []
        while len(got) < wanted:
            addr = self._one(piece)
            if addr is None:
                self.lists[piece] += got
                return None
            got.append(addr)
        self.live[got[0]] = piece, got
        return got[0]

    def free(self, addr: int) -> None:
        piece, got = self.live.pop(addr)
        self.lists[piece] += got

    def _one(self, piece: int) -> int | None:
        chunks = self.lists[piece]
        if not chunks and not self.full:
            page = self.map.take(PAGE)
            if page is None:
                self.full = True
            else:
                chunks += range(page, page + PAGE, piece)
        return chunks.pop() if chunks else None


def uncompiled(module: ModuleType) -> SimpleNamespace:
    """An allocator's two kernels as plain Python."""
    alloc, free = (getattr(kernel, "py_func", kernel) for kernel in (module.alloc, module.free))
    return SimpleNamespace(alloc=alloc, free=free)
