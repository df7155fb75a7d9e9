"""What is read and what is kept: the importer of recordings (T1), and the ledger of a results folder (P1)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmemexp.errors import StoreError
from kmemexp.store import manifest
from kmemexp.store.files import LaneFiles
from kmemexp.store.ledger import Ledger
from kmemexp.store.manifest import Change
from kmemexp.store.schema import DONE, FAILED
from kmemexp.validate.check import Check
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting
from kmemexp.workload.traces import importer
from kmemexp.workload.traces.stats import stats

CACHES = {"filp": 184, "dentry": 192, "task_struct": 9088}
HEAD = "task-12    [{cpu:03}] {flags} {time:>12.6f}: {event}: {fields}\n"
COUNTED = ("allocs", "frees", "lost_frees", "unmatched_frees", "null", "bytes_req", "bytes_alloc", "nowait")


def _recording(s: Setting, events: int) -> tuple[str, dict[str, Any]]:
    """Text of a recording, drawn, and what is to be counted in it: by a dict of live objects."""
    lines: list[str] = []
    live: dict[int, tuple[int, int]] = {}
    told: dict[str, Any] = dict.fromkeys(COUNTED, 0)
    peak = now = 0
    for k in range(events):
        ns = 1_000_000_000 + 1000 * k  # microseconds, as ftrace prints them
        head = {"cpu": s.whole(0, 3), "flags": ".....", "time": ns / 1e9}
        draw = s.whole(0, 99)
        page = 0xFFFF888000000000 + (s.whole(1, events // 2) << 13)
        if draw < 55:
            name = s.one((None, *CACHES))
            size = CACHES[name] if name else s.whole(1, 3000)
            got = -(-size // 64) * 64
            nowait = s.whole(0, 4) == 0
            gfp = "GFP_ATOMIC" if nowait else "GFP_KERNEL"
            if page in live:  # its free was lost
                told["lost_frees"] += 1
                now -= live.pop(page)[0]
            live[page] = size, ns
            now += size
            told["allocs"] += 1
            told["bytes_req"] += size
            told["bytes_alloc"] += got
            told["nowait"] += nowait
            field = f"name={name} " if name else ""
            fields = (
                f"call_site=f+0x1/0x2 ptr={page:016x} {field}bytes_req={size} bytes_alloc={got} gfp_flags={gfp} node=-1"
            )
            lines.append(HEAD.format(event="kmem_cache_alloc" if name else "kmalloc", fields=fields, **head))
        elif draw < 95:
            page = s.one(list(live)) if live and draw < 90 else page
            if page in live:
                now -= live.pop(page)[0]
                told["frees"] += 1
            else:
                told["unmatched_frees"] += 1
            lines.append(HEAD.format(event="kfree", fields=f"call_site=g+0x1/0x2 ptr={page:016x}", **head))
        else:
            told["null"] += 1
            lines.append(HEAD.format(event="kfree", fields="call_site=g+0x1/0x2 ptr=0000000000000000", **head))
        peak = max(peak, len(live))
    return "".join(lines), told | {"peak": peak, "live": len(live), "live_bytes": now}


def recordings(s: Setting) -> Iterator[Row]:
    """T1: a drawn recording, as text and imported, is counted as a dict of live objects counts it."""
    of = Wanted("T1", "counted apart, by a dict of live objects", "A")
    text, told = _recording(s, max(round(s.long(4000, 20_000)), 300))
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "drawn.txt", Path(folder) / "drawn.parquet"
        path.write_text(text, "utf-8")
        importer.import_trace(path, out)
        for what, found in (("text", stats(path)), ("imported", stats(out))):
            at_end = found["live_at_end"]
            got = {name: found[name] for name in COUNTED}
            got |= {"peak": found["peak"]["n"], "live": at_end["n"], "live_bytes": at_end["req"]}
            wrong = ", ".join(f"{k}: {told[k]} expected, {got[k]} found" for k in told if told[k] != got[k])
            row = of.all_equal(f"{what}: {text.count(chr(10))} events", list(told.values()), [got[k] for k in told])
            yield row._replace(note=wrong or f"{len(told)} figures")


def ledgers(s: Setting) -> Iterator[Row]:
    """P1: what counts after many commits is what a dict says; a damaged manifest, or one out of order, is noticed."""
    of = Wanted("P1", "counted apart, by a dict of rows", "A")
    ledger = Ledger()
    ledger.index()
    rows: dict[tuple[str, int], tuple[str, str]] = {}
    files: dict[str, list[tuple[str, int]]] = {}
    texts, last, refused = [], "", 0
    for number in range(max(round(s.long(400, 4000)), 200)):
        keys = [f"{s.whole(0, 60):032x}" for _ in range(s.whole(1, 3))]
        new = LaneFiles(f"{number:032x}", s.one((DONE, DONE, FAILED)), {key: [s.whole(0, 3)] for key in keys})
        mine = [(key, replica) for key, replicas in new.cells.items() for replica in replicas]
        drop = sorted({rows[row][0] for row in mine if row in rows})
        if s.whole(0, 9) == 0 and drop:  # a commit that forgets whose rows it replaces
            refused += _refused(ledger, Change([new], []))
            continue
        change = Change([new], drop)
        text = manifest.encode(change, "run", last)
        ledger.apply(manifest.decode(manifest.path_of(number), text, last))
        texts.append(text)
        last = manifest.digest(text)
        for name in drop:
            for row in files.pop(name):
                rows.pop(row)
        files[new.id] = mine
        rows |= dict.fromkeys(mine, (new.id, new.status))
    told = {row: status for row, (_, status) in rows.items()}
    yield of.exact(f"{len(texts)} commits: rows that count as they should", len(told),
                   sum(ledger.status(*row) == status for row, status in told.items()))  # fmt: skip
    yield of.holds("all rows, and no other", ledger.done() == told)
    yield of.exact("rows by status", sum(status == FAILED for status in told.values()), ledger.counts()[FAILED])
    yield of.holds("a file that counts twice is refused", refused > 0 and ledger.done() == told)
    damaged = 0
    tries = max(round(s.long(60, 300)), 40)
    for _ in range(tries):
        number = s.whole(1, len(texts) - 1)
        turned, previous = bytearray(texts[number]), manifest.digest(texts[number - 1])
        if s.whole(0, 1):
            turned[s.whole(0, turned.rfind(b',"digest":') - 1)] ^= 1 << s.whole(0, 6)
        else:
            previous = manifest.digest(texts[number])
        try:
            manifest.decode(manifest.path_of(number), bytes(turned), previous)
        except (StoreError, ValueError):
            damaged += 1
    yield of.exact("manifests with a bit turned, or out of order: noticed", tries, damaged)


def _refused(ledger: Ledger, change: Change) -> bool:
    try:
        ledger.apply(change)
    except ValueError:
        return True
    return False


CHECKS = (Check("T1", recordings, 2), Check("P1", ledgers))
