"""Which physical pages belong to which NUMA node: each has an equal range of the direct map, the last one the rest."""

LARGEST_BLOCK = 1024  # pages: MAX_PAGE_ORDER of Linux on x86-64 and arm64; no block lies on two nodes


def span_pages(pages: int, nodes: int) -> int:
    """Pages of each node but the last. Raises ValueError where that is less than the largest block."""
    span: int = pages // nodes // LARGEST_BLOCK * LARGEST_BLOCK
    if not span:
        raise ValueError(f"{nodes} nodes share {pages} pages; each needs {LARGEST_BLOCK} (4 MiB)")
    return span
