"""Linux's vmalloc space once more, with lists and a textbook red-black tree: what `sim.arenas.vmap` must equal.

In pages throughout, except that a search wants size + align - 1 bytes: with an alignment, one page more than the sum.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Node:
    start: int
    end: int
    red: bool = True
    up: Any = None
    left: Any = None
    right: Any = None

    def largest(self):
        return max([self.end - self.start, *(c.largest() for c in (self.left, self.right) if c is not NIL)])


NIL = Node(0, 0, red=False)


class Tree:
    """Red-black tree after Cormen, Leiserson, Rivest and Stein; nodes are replaced, their contents never moved."""

    def __init__(self):
        self.root = NIL

    def nodes(self, n=None):
        n = self.root if n is None else n
        return [] if n is NIL else [*self.nodes(n.left), n, *self.nodes(n.right)]

    def insert(self, new):
        parent, at = NIL, self.root
        while at is not NIL:
            parent, at = at, at.left if new.start < at.start else at.right
        new.up, new.left, new.right, new.red = parent, NIL, NIL, True
        if parent is NIL:
            self.root = new
        elif new.start < parent.start:
            parent.left = new
        else:
            parent.right = new
        while new.up.red:
            grand = new.up.up
            side, other = ("left", "right") if new.up is grand.left else ("right", "left")
            uncle = getattr(grand, other)
            if uncle.red:
                new.up.red = uncle.red = False
                grand.red = True
                new = grand
            else:
                if new is getattr(new.up, other):
                    new = new.up
                    self.rotate(new, side, other)
                new.up.red, grand.red = False, True
                self.rotate(grand, other, side)
        self.root.red = False

    def delete(self, z):
        was_red = z.red
        if z.left is NIL:
            x = z.right
            self.transplant(z, x)
        elif z.right is NIL:
            x = z.left
            self.transplant(z, x)
        else:
            y = z.right
            while y.left is not NIL:
                y = y.left
            was_red, x = y.red, y.right
            if y.up is z:
                x.up = y
            else:
                self.transplant(y, x)
                y.right = z.right
                y.right.up = y
            self.transplant(z, y)
            y.left = z.left
            y.left.up = y
            y.red = z.red
        if not was_red:
            self.delete_fixup(x)

    def delete_fixup(self, x):
        while x is not self.root and not x.red:
            side, other = ("left", "right") if x is x.up.left else ("right", "left")
            w = getattr(x.up, other)
            if w.red:
                w.red, x.up.red = False, True
                self.rotate(x.up, side, other)
                w = getattr(x.up, other)
            if not w.left.red and not w.right.red:
                w.red = True
                x = x.up
                continue
            if not getattr(w, other).red:
                getattr(w, side).red, w.red = False, True
                self.rotate(w, other, side)
                w = getattr(x.up, other)
            w.red, x.up.red, getattr(w, other).red = x.up.red, False, False
            self.rotate(x.up, side, other)
            x = self.root
        x.red = False

    def transplant(self, u, v):
        if u.up is NIL:
            self.root = v
        elif u is u.up.left:
            u.up.left = v
        else:
            u.up.right = v
        v.up = u.up

    def rotate(self, x, side, other):
        """Move x down to one side; the child on the other side takes its place."""
        y = getattr(x, other)
        setattr(x, other, getattr(y, side))
        if getattr(y, side) is not NIL:
            getattr(y, side).up = x
        self.transplant(x, y)
        setattr(y, side, x)
        x.up = y


def up(page, align):
    return -(-page // align) * align


@dataclass
class Area:
    start: int
    pages: int
    node: int | None
    attr: int

    @property
    def end(self):
        return self.start + self.pages


class NaiveVmap:
    """One map over pages [base, top)."""

    def __init__(self, base, top, cpus, guard=1, nodes=0, lazy_max=0):
        self.base, self.top, self.guard = base, top, guard
        self.nodes = nodes or min(max(cpus, 1), 128)
        self.lazy_max = lazy_max or 8192 * cpus.bit_length()
        self.tree = Tree()
        self.tree.insert(Node(base, top))
        self.live = {}
        self.lazy = [[] for _ in range(self.nodes)]
        self.pools = [{n: [] for n in range(1, 257)} for _ in range(self.nodes)]
        self.flushes = self.hits = self.overflows = 0

    def alloc(self, pages, align, single, cpu, attr):
        if single:
            area, node, size = None, None, pages
        else:
            size, node = pages + self.guard, cpu % self.nodes if self.nodes > 1 else None
            area = self._pooled(node, size, align)
        if area is None:
            start = self._carve(size, align)
            if start is None:
                self.overflows += 1
                self.drain(full=True)
                start = self._carve(size, align)
            if start is None:
                return -1
            area = Area(start, size, node, attr)
        area.attr = attr
        self.live[area.start] = area
        return area.start

    def release(self, start, single):
        area = self.live.pop(start)
        if single:
            self._merge(area.start, area.end)
            return
        self.lazy[area.node or 0].append(area)
        if sum(a.pages for node in self.lazy for a in node) > self.lazy_max:
            self.drain(full=False)

    def drain(self, full):
        for pools in self.pools:
            gone = []
            for areas in pools.values():
                quarter = len(areas) // 4
                count = len(areas) if full or quarter == 0 else quarter
                gone += areas[:count]
                del areas[:count]
            self._merge_all(gone)
        if any(self.lazy):
            self.flushes += 1
        for node, areas in enumerate(self.lazy):
            rest = []
            for a in sorted(areas, key=lambda a: a.start):
                if a.node is None or full or a.pages > 256:
                    rest.insert(0, a)
                else:
                    self.pools[node][a.pages].insert(0, a)
            for a in rest:
                self._merge(a.start, a.end)
        self.lazy = [[] for _ in range(self.nodes)]

    def free_ranges(self):
        return [(n.start, n.end) for n in self.tree.nodes()]

    def _pooled(self, node, size, align):
        pool = self.pools[node][size] if node is not None and size <= 256 else []
        if not pool:
            return None
        area = pool.pop(0)
        if area.start % align:
            pool.append(area)
            return None
        self.hits += 1
        return area

    def _merge_all(self, areas):
        """Merge areas with each other, then with the tree, in address order."""
        runs = []
        for a in sorted(areas, key=lambda a: a.start):
            if runs and runs[-1][1] == a.start:
                runs[-1][1] = a.end
            else:
                runs.append([a.start, a.end])
        for start, end in runs:
            self._merge(start, end)

    def _merge(self, start, end):
        nodes = self.tree.nodes()
        above = next((n for n in nodes if n.start == end), None)
        below = next((n for n in nodes if n.end == start), None)
        if above is not None and below is not None:
            self.tree.delete(above)
            below.end = above.end
        elif above is not None:
            above.start = start
        elif below is not None:
            below.end = end
        else:
            self.tree.insert(Node(start, end))

    def _carve(self, size, align):
        n = self._search(size, align)
        if n is None:
            return None
        start = up(n.start, align)
        low = Node(n.start, start)
        if n.start == start and n.end == start + size:
            self.tree.delete(n)
        elif n.start == start:
            n.start += size
        elif n.end == start + size:
            n.end = start
        else:
            n.start = start + size
            self.tree.insert(low)
        return start

    def _search(self, size, align):
        """Left while there is enough, this one, right while there is enough, else back up."""
        wanted = size if align == 1 or self.top - self.base == size else size + align

        def enough(n):
            return n is not NIL and n.largest() >= wanted

        def within(n):
            return n if up(n.start, align) + size <= n.end else None

        def visit(n):
            if n is NIL:
                return None
            # What lies left is looked at only if it has enough somewhere; the same on the right.
            found = visit(n.left) if enough(n.left) else None
            return found or within(n) or (visit(n.right) if enough(n.right) else None)

        return visit(self.tree.root)
