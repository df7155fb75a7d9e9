"""Free-page thresholds of the page daemon and of vm_page_alloc, by kernel."""

from typing import NamedTuple

from kmemexp.sim.slots import PAGE


class PageReserves(NamedTuple):
    """Thresholds in pages."""

    interrupt_free_min: int
    pageout_free_min: int
    reserved: int
    severe: int
    minimum: int
    target: int


def bsd2003(ram_bytes: int) -> PageReserves:
    """Thresholds of a machine all of whose pages are free at boot (vm_pageout.c, vm_page.c, 2003 to 2010)."""
    pages = ram_bytes // PAGE
    interrupt = 2
    pageout = 2 * 65536 // PAGE + interrupt
    cluster = 16 if pages >= 2000 else 8  # vm_pageout_page_count
    reserved = cluster + pageout + pages // 768 + 32  # PQ_L2_SIZE
    least = 4 + max(pages - 1024, 0) // 200
    minimum = least + reserved
    return PageReserves(
        interrupt_free_min=interrupt,
        pageout_free_min=pageout,
        reserved=reserved,
        severe=least // 2 + reserved,
        minimum=minimum,
        target=(4 if pages > 6144 else 2) * minimum + reserved,
    )


def dragonfly_2020(ram_bytes: int) -> PageReserves:
    """DragonFly, July 2020: vm_pageout_free_page_calc(). An interrupt leaves an eighth of the minimum alone."""
    minimum = 64 + ram_bytes // PAGE // 200
    reserved = minimum // 2 + 7
    return PageReserves(minimum // 8 + 7, minimum // 4 + 7, reserved, minimum // 2, minimum, 4 * minimum + reserved)


def freebsd_15(ram_bytes: int) -> PageReserves:
    """FreeBSD since 2018, a domain of so much memory: vm_pageout_init_domain()."""
    pages = ram_bytes // PAGE
    pageout = 34
    reserved = 32 + pageout + pages // 768
    least = 4 + max(pages - 1024, 0) // 200
    return PageReserves(2, pageout, reserved, least // 2 + reserved, least + reserved, 4 * least + reserved)
