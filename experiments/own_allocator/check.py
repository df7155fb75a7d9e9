"""Check the example allocator: the conformance suite, and placement against a reference model written apart."""

from collections.abc import Callable, Sequence
from pathlib import Path

from kmemexp.sim.items import Item
from kmemexp.testing import check_allocator

PAGE = 4096
ALLOCATOR = Path(__file__).parent / "allocators" / "eager_slab.py"


class Reference:
    """The same allocator in lists and dicts."""

    def __init__(self, take: Callable, give: Callable, cpus: int, items: Sequence[Item]) -> None:
        self.take, self.give = take, give
        self.slabs: dict[int, list] = {}  # base: chunk size, free chunks (last first), chunks in all
        self.order: dict[int, list[int]] = {}  # slabs with room by chunk size, first last
        self.large: dict[int, int] = {}

    def alloc(self, size: int, item: int, cpu: int, flags: int) -> int:
        """Allocate; -1 without memory."""
        if size > PAGE // 2:
            base = self.take(-(-size // PAGE) * PAGE, PAGE)
            if base >= 0:
                self.large[base] = -(-size // PAGE) * PAGE
            return max(base, -1)
        chunk = next(c for c in self._classes() if c >= size)
        order = self.order.setdefault(chunk, [])
        if not order:
            base = self.take(PAGE, PAGE)
            if base < 0:
                return -1
            free = [base + k * chunk for k in range(PAGE // chunk)]
            self.slabs[base] = [chunk, free[::-1], len(free)]
            order.append(base)
        free = self.slabs[order[-1]][1]
        addr = free.pop()
        if not free:
            order.pop()
        return addr

    def free(self, addr: int, item: int, cpu: int, flags: int) -> None:
        """Free."""
        if addr in self.large:
            self.give(addr, self.large.pop(addr))
            return
        base = addr // PAGE * PAGE
        chunk, free, count = self.slabs[base]
        if not free:
            self.order[chunk].append(base)
        free.append(addr)
        if len(free) == count:
            self.order[chunk].remove(base)
            del self.slabs[base]
            self.give(base, PAGE)

    @staticmethod
    def _classes() -> list[int]:
        small = [16, 32, 48, 64]
        return small + [size + size // 4 * k for size in (64, 128, 256, 512, 1024) for k in (1, 2, 3, 4)]


if __name__ == "__main__":
    check_allocator(ALLOCATOR, naive=Reference)
    print(f"{ALLOCATOR.name}: sound")
