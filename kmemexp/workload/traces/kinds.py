"""Who would have served it in 2003: the role of each Linux cache in a BSD kernel.

Which BSD types were zones, and by how many pages they grew: reference of the FreeBSD 4 sources (vm_zone.h users,
June 2003). Linux's slab merges caches of equal size and flags under one name, so a name may stand for another
type; where call sites of the recorded traces show that, the line says so. What has no line is served by malloc.
"""

from typing import NamedTuple

from kmemexp.workload.stream import KVA_WIRED, MALLOC, MBUF, ZONE
from kmemexp.workload.traces.schema import UNNAMED


class Role(NamedTuple):
    """What a kind of object would have been: class of stream.py, and pages its zone grew by."""

    klass: int
    growth: int = 0


KVA_NAME = "vmap"  # kind of the KVA operations themselves: vmalloc areas and thread stacks, both wired
KVA_ROLE = Role(KVA_WIRED)

_PROC, _VMSPACE, _VNODE, _NAMEI, _ONE = (Role(ZONE, growth) for growth in (5, 3, 5, 2, 1))

ROLES = {
    # Processes and their address spaces.
    "task_struct": _PROC,  # PROC; the kernel stack is a KVA operation of its own, as the u-area was
    "mm_struct": _VMSPACE,  # VMSPACE
    "vm_area_struct": _ONE,  # MAP ENTRY
    "maple_node": _ONE,  # index of the map entries; in 2003 the entries' own links, so part of MAP ENTRY
    "vmap_area": _ONE,  # MAP ENTRY of the kernel map
    "anon_vma": _ONE,  # VM OBJECT: what a shadow chain begins with
    "anon_vma_chain": _ONE,  # link of map entry and object; nearest is VM OBJECT. Also epoll's wait entries (merged)
    # Files: a Linux inode holds the vnode and the file system's inode in one, and the vnode was a zone.
    "inode_cache": _VNODE,  # VNODE
    "sock_inode_cache": _ONE,  # socket: Linux embeds it in an inode
    "names_cache": _NAMEI,  # NAMEI
    "lsm_inode_cache": Role(MALLOC),  # a label, not an inode
    # Event notification and asynchronous I/O.
    "eventpoll_epi": _ONE,  # KNOTE
    "aio_kiocb": _ONE,  # AIOCB
    "kioctx": _ONE,  # AIO
    # Protocol control blocks.
    "TCP": _ONE,  # tcpcb
    "TCPv6": _ONE,
    "tw_sock_TCP": _ONE,  # TIME_WAIT state: kept in the tcpcb, from FreeBSD 5 in tcptw, zones both
    "tw_sock_TCPv6": _ONE,
    "request_sock_TCP": _ONE,  # syncache
    "request_sock_TCPv6": _ONE,
    "UDP": _ONE,  # udpcb
    "UDPv6": _ONE,
    "RAW": _ONE,  # ripcb
    "RAWv6": _ONE,
    "UNIX": _ONE,  # unpcb
    "UNIX-STREAM": _ONE,
    "AF_VSOCK": _ONE,  # a local socket's control block: nearest is unpcb
    # Packets: the buffer's head and small data. Larger data are kmalloc, which a cache name cannot tell apart.
    "skbuff_head_cache": Role(MBUF),
    "skbuff_fclone_cache": Role(MBUF),
    "skbuff_small_head": Role(MBUF),
    "pool_workqueue": Role(MBUF),  # 99 % of its allocations come from __alloc_skb: skbuff_fclone_cache, merged
}
"""Role by cache name. Malloc types of 2003, without a line here: file, filedesc, ucred, namecache (dentry), sigacts,
labels (lsm_*), UFS inode parts (extents), bio and buf headers, and all of kmalloc."""


def role(cache: str) -> Role:
    """Return the role of a cache; every file system's own inode cache is a vnode's."""
    if cache.startswith(f"{UNNAMED} "):
        return _ONE  # a call site and a size: what it is we do not know, its size we do
    found = ROLES.get(cache)
    if found is None and cache.endswith(("_inode_cache", "_inode")):
        return _VNODE
    return found or Role(MALLOC)
