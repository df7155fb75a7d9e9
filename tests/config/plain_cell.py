"""The configuration of a cell in normal form, by node."""

from kmemexp.sim import sizing

CELL = {
    "design": {"name": "freebsd4"},
    "maps": {"layout": "split", "arena": "vm_map", "entries": "kmapentzone", "image_bytes": 8388608, "lock": "sleep",
             "submaps": list(sizing.SUBMAPS), "reserves": list(sizing.RESERVES), "reclaim": False, "params": {}},
    "objects": {"malloc": "buckets", "zone": "zalloc", "mbuf": "mbuf", "kinds": {}, "params": {}, "locks": {}},
    "machine": {"cpus": 2, "threads": 4, "domains": 1, "ram_bytes": 134217728, "kva_bytes": 268435456},
    "workload": {
        "name": "filetree",
        "source": "trace",
        "trace": "filetree",
        "copies": 2,
        "shift_s": 1.0,
        "window_s": 0,
    },
    "cost": {"name": "none"},
    "interrupts": {
        "model": "spl", "nested": True, "big_lock": True, "big_wait": "spin", "dispatch": "borrow",
        "slice_ns": 0, "would_sleep": "block", "on_deadlock": "stop", "rate_hz":
        None, "clock_allocates": False, "depth": 32, "queue": 64, "sources": {},
    },
    "memory": {"limited": False},
    "sample": {"points": 96, "snapshots": 8, "bins": 256},
    "seed": 0,
    "policy": {"name": "none", "parts": [], "trim_s": 0.0, "watch_s": 0.0, "floor_bytes": 0},
    "stability": {"kind": ""},
    "roles": {"name": "bsd2003", "recorded": {"task_struct": {"class": "zone", "growth": 5}}, "synthetic": {}},
}  # fmt: skip
