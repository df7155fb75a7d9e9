"""The lazy buddy system of Lee and Barkley once more, with lists and recursion; what `lazy_buddy` must equal."""

PAGE = 4096


class NaivePools:
    """Pools of one sort. A block is (address, size); a class is known by its size."""

    def __init__(self, take, give, least, pool, keep):
        self.take, self.give, self.pool, self.keep = take, give, pool, keep
        sizes = [n for n in (1 << k for k in range(20)) if least <= n <= pool]
        self.local = {n: [] for n in sizes}  # the last one goes first
        self.glob = {n: [] for n in sizes}
        self.busy = dict.fromkeys(sizes, 0)  # allocated or split
        self.pools = 0

    def slack(self, n):
        return self.busy[n] - len(self.local[n])

    def get(self, n):
        """Address of a block of `n` bytes, which counts as busy from now on; -1 without memory."""
        if self.local[n]:
            addr = self.local[n].pop()
        elif self.glob[n]:
            addr = self.glob[n].pop()
        elif n == self.pool:
            addr = self.take(n, n)
            self.pools += addr >= 0
        else:
            addr = self.get(2 * n)
            if addr >= 0:
                self.local[n].append(addr + n)
        self.busy[n] += addr >= 0
        return addr

    def put(self, addr, n):
        slack = self.slack(n)
        self.busy[n] -= 1
        if n == self.pool:
            self.glob[n].append(addr)
        elif slack >= 2:
            self.local[n].append(addr)
        else:
            other = self.local[n].pop() if slack == 0 else None
            self._globally(addr, n)
            if other is not None:
                self._globally(other, n)
        assert n == self.pool or self.slack(n) >= 0

    def _globally(self, addr, n):
        if addr ^ n in self.glob[n]:
            self.glob[n].remove(addr ^ n)
            self.put(min(addr, addr ^ n), 2 * n)
        else:
            self.glob[n].append(addr)

    def give_back(self):
        while len(self.glob[self.pool]) > self.keep:
            self.give(self.glob[self.pool].pop(), self.pool)
            self.pools -= 1


class NaiveLazyBuddy:
    def __init__(self, take, give, cpus=1, items=(), keep=0, max_request=4096):
        self.take, self.give, self.most = take, give, max_request
        self.small = NaivePools(take, give, 16, 4096, keep)
        self.large = NaivePools(take, give, 512, 16384, keep)
        self.live = {}

    def _where(self, nbytes):
        n = 16
        while n < nbytes:
            n *= 2
        return (self.small if n <= 256 else self.large), n

    def alloc(self, nbytes, item=0, cpu=0, flags=0):
        if nbytes > self.most:
            addr = self.take(-(-nbytes // PAGE) * PAGE, PAGE)
        else:
            pools, n = self._where(nbytes)
            addr = pools.get(n)
        if addr >= 0:
            self.live[addr] = nbytes
        return addr

    def free(self, addr, item=0, cpu=0, flags=0):
        nbytes = self.live.pop(addr)
        if nbytes > self.most:
            self.give(addr, -(-nbytes // PAGE) * PAGE)
            return
        pools, n = self._where(nbytes)
        pools.put(addr, n)
        pools.give_back()
