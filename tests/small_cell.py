"""A cell that simulates in a fraction of a second and has a kind of every class."""

from kmemexp.sim import sizing

MIB = 1 << 20
OBJECTS = {
    "buckets": {"malloc": "buckets", "zone": "zalloc", "mbuf": "mbuf", "kinds": {}, "params": {}},
    "slab": {"malloc": "dfly_slab", "zone": "dfly_slab", "mbuf": "mbuf", "kinds": {}, "params": {}},
}
DESIGNS = [
    ("split", "buckets", "kmapentzone"),
    ("unified", "buckets", "kmapentzone"),
    ("unified", "slab", "reservation"),
]
KINDS = {
    "small": {"class": "malloc", "size": {"law": "uniform", "low_bytes": 8, "high_bytes": 900}, "rate_hz": 400.0,
              "lifetime": {"law": "exponential", "mean_s": 2.0}, "remote": 0.3},
    "large": {"class": "malloc", "size": {"law": "uniform", "low_bytes": 4096, "high_bytes": 300000}, "rate_hz": 20.0,
              "lifetime": {"law": "exponential", "mean_s": 1.0}, "nowait": 0.2, "soft": 0.3},
    "socket": {"class": "zone", "size": {"law": "fixed", "bytes": 180}, "growth": 1, "limit": 2000, "rate_hz": 50.0,
               "lifetime": {"law": "exponential", "mean_s": 3.0}},
    "vnode": {"class": "zone", "size": {"law": "fixed", "bytes": 168}, "growth": 5, "rate_hz": 50.0,
              "lifetime": {"law": "exponential", "mean_s": 3.0}},
    "cluster": {"class": "mbuf", "size": {"law": "fixed", "bytes": 2048}, "rate_hz": 100.0,
                "lifetime": {"law": "exponential", "mean_s": 1.0}},
    "pipe": {"class": "kva", "size": {"law": "fixed", "bytes": 16384}, "rate_hz": 20.0,
             "lifetime": {"law": "exponential", "mean_s": 2.0}},
    "uarea": {"class": "kva_wired", "size": {"law": "fixed", "bytes": 12288}, "rate_hz": 10.0,
              "lifetime": {"law": "exponential", "mean_s": 2.0}},
    "args": {"class": "exec", "size": {"law": "fixed", "bytes": 69632}, "rate_hz": 5.0,
             "lifetime": {"law": "exponential", "mean_s": 0.1}},
}  # fmt: skip
LOAD = {
    "name": "test", "source": "synthetic", "duration_s": 0.0, "scale": 1.0, "kinds": KINDS,
    "phases": [{"name": "up", "seconds": 10.0, "level": 1.0}, {"name": "down", "seconds": 5.0, "level": 0.1}],
}  # fmt: skip


def cell(layout: str, objects: str, entries: str, kva_mib: int = 160, **params: dict) -> dict:
    return {
        "design": {"name": "test"},
        "maps": {
            "layout": layout,
            "arena": "vm_map",
            "entries": entries,
            "image_bytes": 8 * MIB,
            "lock": "sleep",
            "submaps": list(sizing.SUBMAPS),
            "reserves": list(sizing.RESERVES),
            "reclaim": False,
            "params": {},
        },
        "objects": OBJECTS[objects] | {"params": params, "locks": {}},
        "machine": {"cpus": 3, "threads": 2, "domains": 1, "ram_bytes": 128 * MIB, "kva_bytes": kva_mib * MIB},
        "workload": LOAD,
        "cost": {"name": "none"},
        "memory": {"limited": False},
        "policy": {"name": "none", "parts": [], "trim_s": 0.0, "watch_s": 0.0, "floor_bytes": 0},
        "stability": {"kind": ""},
        "sample": {"points": 20, "snapshots": 3, "bins": 32},
        "seed": 7,
    }
