"""What a plan says of the memory that a lane takes."""

import kmemexp
from kmemexp.actions import plan


def said(machine: str) -> int:
    (planned,) = kmemexp.plan(["design=linux_slub", f"machine={machine}", "cluster=serial"])
    return plan._lane_bytes(planned)


def test_a_plan_counts_a_byte_for_each_page_of_ram_and_no_address_space():
    assert said("amd64_512g") - said("amd64_64g") == (448 << 30) // 4096
    assert said("amd64_512g") < 1 << 30  # of 32 TiB of KVA and 512 GiB of RAM
