"""The compiled parser and tracker against slow twins."""

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from tracetext import as_perf, as_trace_cmd, cache_alloc, cache_free, kfree, kmalloc, read

from kmemexp.workload.traces import live, words
from kmemexp.workload.traces import schema as sc

EVENT = re.compile(
    r".*\[(\d+)\] (?:(\S+) )? *(\d+)\.(\d+): +(?:\w+:)?(\w+): .*?ptr=(\(nil\)|\w+)(?: name=(\S+))?"
    r"(?: bytes_req=(\d+) bytes_alloc=(\d+) gfp_flags=(\S+))?.*"
)

pointers = st.integers(0, 12).map(lambda i: 0xFFFF888000000000 + 64 * i if i else 0)
heads = st.fixed_dictionaries(
    {
        "cpu": st.integers(0, 300),
        "flags": st.sampled_from([".....", "..s..", "d.h1.", "....1", "d..2"]),
        "time": st.integers(0, 10**13).map(lambda us: f"{us // 10**6}.{us % 10**6:06}"),
    }
)
gfps = st.sampled_from(["GFP_KERNEL", "GFP_ATOMIC|__GFP_ZERO", "GFP_NOWAIT", "__GFP_NOWARN"])
lines = st.one_of(
    st.builds(lambda p, s, g, h: kmalloc(p, s, gfp=g, **h), pointers, st.integers(0, 2**40), gfps, heads),
    st.builds(lambda p, n, h: cache_alloc(p, n, **h), pointers, st.sampled_from(["filp", "a-1", "kmalloc-64"]), heads),
    st.builds(lambda p, h: kfree(p, **h), pointers, heads),
    st.builds(lambda p, h: cache_free(p, **h), pointers, heads),
    st.sampled_from(["garbage\n", "# comment\n", "x [000] ..... 1.0: other: a=1\n", "\n", "a [1] 2.0: kfree: ptr=\n"]),
)


def naive(trace):
    """Rows as (op, time_ns, cpu, object, requested, allocated, cache, nowait), by regular expression and dict."""
    rows, objects, number = [], {}, 0
    for line in trace.splitlines():
        found = EVENT.fullmatch(line)
        if not found or found[5] not in sc.EVENT_NAMES:
            continue
        cpu, _, seconds, part, event, ptr, name, req, alloc, gfp = found.groups()
        head = (int(seconds) * 10**9 + int(part.ljust(9, "0")), int(cpu))
        address = 0 if ptr == "(nil)" else int(ptr, 16)
        if "alloc" in event:
            cache = name or "kmalloc"
            nowait = bool({"GFP_ATOMIC", "GFP_NOWAIT"} & set(gfp.split("|")))
            if not address:
                rows.append(("null_alloc", *head, -1, int(req), int(alloc), cache, nowait))
                continue
            if address in objects:
                rows.append(("lost_free", *head, *objects[address], False))
            objects[address] = (number, int(req), int(alloc), cache)
            rows.append(("alloc", *head, *objects[address], nowait))
            number += 1
        elif not address:
            rows.append(("null_free", *head, -1, -1, -1, None, False))
        elif address in objects:
            rows.append(("free", *head, *objects.pop(address), False))
        else:
            rows.append(("unmatched_free", *head, -1, -1, -1, name, False))
    return rows


@settings(max_examples=150)
@given(st.lists(lines, max_size=40), st.sampled_from([None, as_trace_cmd, as_perf]))
def test_equals_a_parser_by_regular_expression(drawn, form):
    if form:
        drawn = [form(line) if "call_site" in line else line for line in drawn]
    trace = "".join(drawn)
    rows, scan = read(trace)
    names = [*words.listed(scan.names), None]
    got = [
        (sc.OPS[r[3]], int(r[0]), int(r[1]), int(r[5]), int(r[6]), int(r[7]), names[r[8]], bool(r[9]))
        for r in zip(*rows, strict=True)
    ]
    assert got == naive(trace)


@settings(max_examples=50)
@given(st.binary(max_size=400))
def test_any_bytes_can_be_read(data):
    read(data.decode("latin-1").encode("ascii", "replace").decode() + "\n")


def test_the_table_of_live_objects_keeps_what_a_dict_keeps():
    draw = random.Random(3)
    table, truth = live.table(1, 16), {}
    keys = [1 + draw.getrandbits(40) for _ in range(300)]
    for step in range(6000):
        key = draw.choice(keys)
        table = live.with_room(table, 1)
        at = live.place(table, key)
        assert (table.key[at] == key) == (key in truth)
        if key in truth:
            assert table.item[at, 0] == truth.pop(key)
            live.remove(table, at)
        else:
            live.put(table, at, key)
            table.item[at, 0] = truth[key] = step
        assert table.used[0] == len(truth)
