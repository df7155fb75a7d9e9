"""A machine rebuilt from copies of its /proc."""

import pytest
from plain_cell import CELL

from kmemexp.config import checks
from kmemexp.errors import ConfigError

ZONES = """\
Node 0, zone      DMA
  pages free     3840
        spanned  4095
        managed  3840
  pagesets
    cpu: 0
              count:    0
    cpu: 1
Node 0, zone   Normal
        managed  1000000
  pagesets
    cpu: 0
    cpu: 1
Node 1, zone   Normal
        managed  1044736
  pagesets
    cpu: 0
    cpu: 1
Node 1, zone  Movable
        managed  0
Node 2, zone   Normal
        managed  0
"""
X86 = "processor\t: 0\nflags\t\t: fpu pse tsc {}\nprocessor\t: 1\n"


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "zoneinfo").write_text(ZONES)
    (tmp_path / "cpuinfo").write_text(X86.format("lm nx"))
    (tmp_path / "min_free_kbytes").write_text("67584\n")
    return tmp_path


def machine(folder):
    return checks.check_node("machine", CELL["machine"] | {"from": str(folder)})


def test_pages_nodes_cpus_and_the_reserve_are_the_kernels_own(proc):
    assert machine(proc) == {
        "arch": "amd64", "cpus": 2, "threads": 4, "domains": 2, "ram_bytes": 2048576 * 4096, "kva_bytes": 128 << 40,
        "min_free_bytes": 66 << 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "arch"), [(X86.format("sse"), None), ("processor\t: 0\nCPU architecture: 8\n", "arm64")]
)
def test_the_architecture_is_read_from_cpuinfo(proc, text, arch):
    (proc / "cpuinfo").write_text(text)
    assert machine(proc).get("arch") == arch  # None: i386, as ever


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("zoneinfo", "Node 0, zone DMA\n", "no /proc/zoneinfo"),
        ("zoneinfo", None, "zoneinfo cannot be read"),
        ("cpuinfo", "cpu: POWER9\n", "neither flags"),
        ("min_free_kbytes", "many", "must hold a number of KiB"),
    ],
)
def test_what_a_file_lacks_is_said(proc, name, text, message):
    (proc / name).unlink()
    if text is not None:
        (proc / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        machine(proc)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"machine\.from=.*copy /proc/zoneinfo"):
        machine(tmp_path / "nowhere")


def test_a_key_that_there_is_not_is_refused_with_one_that_there_is():
    with pytest.raises(ConfigError, match=r"machine\.cpu: no such key.*cpus"):
        checks.check_node("machine", CELL["machine"] | {"cpu": 2})
