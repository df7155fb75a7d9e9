"""Stale references from their description alone: each byte's latest occupant in a dict."""

PAGE = 4096
FREE, GONE = "untouched", "unmapped"


class NaiveStale:
    """Keeps, for every byte that matters, what was put there last; watches remember a byte and what it held."""

    def __init__(self, kind: int, direct_map: int) -> None:
        self.kind, self.direct = kind, direct_map
        self.at: dict[int, int] = {}  # address by watch
        self.seen: dict[int, object] = {}  # by watch: what has happened to that byte since
        self.counts = dict.fromkeys(("same_object", "same_type", "wrong_object", "other_type", "unmapped"), 0)

    def watch(self, number: int, addr: int) -> None:
        if addr >= 0:
            self.at[number] = addr
            self.seen[number] = FREE

    def put(self, addr: int, nbytes: int, kind: int) -> None:
        for number, byte in self.at.items():
            if byte in range(addr, addr + nbytes):
                self.seen[number] = (kind, addr)

    def unmap(self, m: int, addr: int, nbytes: int) -> None:
        if m != self.direct:
            self._pages(addr, nbytes, GONE)

    def map(self, addr: int, nbytes: int) -> None:
        self._pages(addr, nbytes, (None, addr))

    def _pages(self, addr: int, nbytes: int, what: object) -> None:
        for number, byte in self.at.items():
            if byte in range(addr, addr + nbytes):
                self.seen[number] = what

    def read(self, number: int, checks: bool, last: bool) -> None:
        if number not in self.at:
            return
        seen = self.seen[number]
        if seen == FREE:
            self.counts["same_object"] += 1
        elif seen == GONE:
            self.counts["unmapped"] += 1
        elif seen == (self.kind, self.at[number]):
            self.counts["same_type" if checks else "wrong_object"] += 1
        else:
            self.counts["other_type"] += 1
        if last:
            del self.at[number], self.seen[number]
