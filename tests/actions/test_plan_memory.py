"""What a plan says of the memory that a lane takes."""

import kmemexp
from kmemexp.actions import plan


def said(machine: str, design: str = "linux_slub", *more: str) -> int:
    (planned,) = kmemexp.plan([f"design={design}", f"machine={machine}", "cluster=serial", *more])
    return plan._lane_bytes(planned)


def test_a_plan_counts_a_byte_for_each_page_of_ram_and_no_address_space():
    assert said("amd64_512g") - said("amd64_64g") == (448 << 30) // 4096
    assert said("amd64_512g") < 1 << 30  # of 32 TiB of KVA and 512 GiB of RAM


def test_pages_of_a_memory_that_the_load_fills_count_more():
    load = "workload=server_today"
    large, small = (said(machine, "linux_6_18", load) for machine in ("amd64_64g", "amd64_4g"))
    assert large - small == plan.OWNED_BYTES * (60 << 30) // 4096
