"""Stephenson's tree once more, with objects and recursion, from its description; what `fast_fits` must equal."""

from dataclasses import dataclass

PAGE = 4096
HEADERS = 256  # to a page


@dataclass
class Block:
    start: int
    size: int
    left: "Block | None" = None
    right: "Block | None" = None


def size(t):
    return t.size if t else 0


def part(t, at):
    """What of a tree lies below an address, and what above."""
    if t is None:
        return None, None
    if t.start < at:
        low, high = part(t.right, at)
        t.right = low
        return t, high
    low, high = part(t.left, at)
    t.left = high
    return low, t


def insert(t, b):
    if size(t) < b.size:
        b.left, b.right = part(t, b.start)
        return b
    if b.start < t.start:
        t.left = insert(t.left, b)
    else:
        t.right = insert(t.right, b)
    return t


def join(low, high, sinking):
    """Join two trees, with a block that belongs between them put as deep as its size wants; None: without one."""
    if max(size(low), size(high)) <= size(sinking):
        if sinking:
            sinking.left, sinking.right = low, high
        return sinking
    if size(low) >= size(high):
        low.right = join(low.right, high, sinking)
        return low
    high.left = join(low, high.left, sinking)
    return high


def delete(t, start):
    if t.start == start:
        return join(t.left, t.right, None)
    if start < t.start:
        t.left = delete(t.left, start)
    else:
        t.right = delete(t.right, start)
    return t


def inorder(t, depth=0):
    return [*inorder(t.left, depth + 1), (t, depth), *inorder(t.right, depth + 1)] if t else []


class NaiveFastFits:
    def __init__(self, take, give=None, cpus=1, items=(), release=0):
        self.take, self.give, self.release, self.root = take, give, release, None
        self.headers = self.pages = 0
        self.live = {}

    def alloc(self, nbytes, item=0, cpu=0, flags=0):
        n = max(-(-nbytes // 8), 1) * 8
        if size(self.root) < n:
            if not self._header():
                return -1
            base = self.take(-(-n // PAGE) * PAGE, PAGE)
            if base < 0:
                return -1
            self.pages += -(-n // PAGE)
            self._enter(base, -(-n // PAGE) * PAGE)
        addr, self.root = self._cut(self.root, n)
        self.live[addr] = n
        return addr

    def free(self, addr, item=0, cpu=0, flags=0):
        assert self._header()
        self._enter(addr, self.live.pop(addr), self.release)

    def _header(self):
        if len(inorder(self.root)) == self.headers:
            if self.take(PAGE, PAGE) < 0:
                return False
            self.headers += HEADERS
            self.pages += 1
        return True

    def _enter(self, start, n, release=False):
        # A search from the root meets the neighbour that lies higher first.
        near = [(d, b) for b, d in inorder(self.root) if b.start == start + n or b.start + b.size == start]
        for _, b in sorted(near, key=lambda found: found[0]):
            self.root = delete(self.root, b.start)
            start, n = min(start, b.start), n + b.size
        low, high = -(-start // PAGE) * PAGE, (start + n) // PAGE * PAGE
        if not release or high <= low or self.headers - len(inorder(self.root)) < 2:
            low = high = start + n
        else:
            self.pages -= (high - low) // PAGE
            self.give(low, high - low)
        for a, b in ((start, low), (high, start + n)):
            if a < b:
                self.root = insert(self.root, Block(a, b - a))

    def _cut(self, t, n):
        """Address of `n` bytes from a tree whose root has them, and what becomes of the tree."""
        fit = [child for child in (t.left, t.right) if size(child) >= n]
        if not fit:
            addr = t.start
            if t.size == n:
                return addr, join(t.left, t.right, None)
            t.start, t.size = t.start + n, t.size - n
            return addr, join(t.left, t.right, t)
        best = min(fit, key=size)  # of equal ones the left
        addr, rest = self._cut(best, n)
        if best is t.left:
            t.left = rest
        else:
            t.right = rest
        return addr, t
