"""Which of Linux' kmalloc() caches an event of a recording is: by the kernel's own questions, and by call site."""

import yaml
from tracetext import cache_alloc, ftrace, kmalloc

from kmemexp.config import files
from kmemexp.sim.allocators.slub import layout
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_ZONE
from kmemexp.workload import roles
from kmemexp.workload.traces import library

T0 = [  # call site, bytes asked for and granted, gfp flags, cache
    ("lsm_blob_alloc", 11, 16, "GFP_KERNEL_ACCOUNT|__GFP_ZERO", "kmalloc-cg-16"),
    ("alloc_slab_obj_exts", 312, 512, "GFP_KERNEL|__GFP_ZERO|__GFP_COMP", "kmalloc-512"),
    ("__d_alloc", 72, 96, "GFP_KERNEL_ACCOUNT|__GFP_RECLAIMABLE", "kmalloc-rcl-96"),
    ("memdup_user", 100, 128, "GFP_USER|__GFP_NOWARN", "memdup_user-128"),
    ("f", 200, 256, "GFP_KERNEL|GFP_DMA|__GFP_ACCOUNT", "dma-kmalloc-256"),
    ("f", 8193, 16384, "GFP_KERNEL", "kmalloc-16384"),  # no cache: a block of four pages
]


def named(site: str, text: str) -> str:
    return text.replace("call_site=f+", f"call_site={site}+")


def test_requests_go_to_the_caches_that_linux_gives_them(tmp_path) -> None:
    """T0 of linux_today.md. A cache that a recording names keeps its name, whoever asks."""
    lines = [
        named(site, kmalloc(0xFFFF888000100000 + (n << 16), asked, allocated=granted, gfp=gfp, time=f"1.{n:06}"))
        for n, (site, asked, granted, gfp, _) in enumerate(T0)
    ]
    skb = cache_alloc(0xFFFF888000900000, "pool_workqueue", 512, allocated=512, time="1.000090")
    last = ftrace("sched_switch", "prev_comm=a", time="1.000099")
    path = tmp_path / "t0.txt"
    path.write_text("".join([*lines, named("__alloc_skb", skb), last]))
    trace = library.load(str(path))
    table = yaml.safe_load((files.conf_dir() / "roles" / "linux.yaml").read_text())
    kinds = roles.cast(trace.kinds, table)
    found = []
    for kind, size in zip(trace.stream.kind.tolist(), trace.stream.size.tolist(), strict=True):
        if kinds.klass[kind] == CLASS_MALLOC:
            found.append(f"{layout.KMALLOC_NAMES[kinds.traits[kind].kmalloc]}-{layout.kmalloc_size(size)}")
        elif kinds.klass[kind] == CLASS_ZONE:
            found.append(f"{kinds.names[kind]} {kinds.traits[kind].stride}")
    assert found == [*(cache for *_, cache in T0), "pool_workqueue 512"]
