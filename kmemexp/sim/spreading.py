"""How much of each stretch of a map its users take: one pass over the table of objects, for all maps."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Table, Words
from kmemexp.sim.tables import obj

BASE, SIZE = 0, 1  # columns of what is said of a map
BEGUN, ENDED = 0, 1  # rows of `ends`: of ranges that begin in a stretch, and of those that end there


@kernel
def spread(objects: Table, user: Words, users: int, maps: Table, bins: int, ends: Table, whole: Words) -> None:
    """Spread the live objects that lie in a map over its `bins` stretches, of length 1.

    `user`: of each kind. `maps`: int64[maps, 2], base and bytes. `ends` (float64[2, n]) and `whole` (int64[n]) have
    bins + 1 places for each user of each map. Ends are what ranges take of the stretches that they begin and end in;
    `whole` is up where stretches begin that a range covers, and down where they end.
    """
    for i in range(len(objects)):
        begin = objects[i, obj.ADDR]
        if begin < 0:
            continue
        end = begin + objects[i, obj.GRANTED]
        for m in range(len(maps)):
            if begin < maps[m, BASE] or end > maps[m, BASE] + maps[m, SIZE]:
                continue
            scale = bins / maps[m, SIZE]
            start, stop = (begin - maps[m, BASE]) * scale, (end - maps[m, BASE]) * scale
            first, last = int(start), min(int(stop), bins - 1)
            row = (m * users + user[objects[i, obj.KIND]]) * (bins + 1)
            if first == last:
                ends[BEGUN, row + first] += stop - start
                continue
            ends[BEGUN, row + first] += first + 1 - start
            ends[ENDED, row + last] += stop - last
            whole[row + first + 1] += 1
            whole[row + last] -= 1
