"""Values of the configuration: sizes written as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemexp import values
from kmemexp.errors import ConfigError
from kmemexp.values import markdown, visible


@pytest.mark.parametrize(
    ("text", "size"),
    [(4096, 4096), ("4096", 4096), ("16k", 16384), ("16K", 16384), ("16KiB", 16384), ("128MiB", 128 << 20),
     ("128 MB", 128 << 20), ("1GiB", 1 << 30), ("1.5GiB", 3 << 29), ("2T", 2 << 40), ("7B", 7), (4096.0, 4096)],
)  # fmt: skip
def test_byte_count(text, size):
    assert values.byte_count("key", text) == size


@pytest.mark.parametrize("text", ["", "k", "1x", "-1", "1.5", "0.3k", "1e3", "16kk", True, None, [1], 1.5])
def test_no_byte_count(text):
    with pytest.raises(ConfigError, match=r"machine\.kva_bytes=.*128MiB"):
        values.byte_count("machine.kva_bytes", text)


@given(st.integers(1, 1023), st.sampled_from([0, 10, 20, 30]))
def test_size_text_reads_back(number, shift):
    assert values.byte_count("key", values.size_text(number << shift)) == number << shift


def test_sizes_become_integers_in_the_workload_too():
    kind = {"class": "malloc", "rate_hz": 1.0, "size": {"law": "fixed", "bytes": "2k"},
            "lifetime": {"law": "exponential", "mean_s": 1.0}}  # fmt: skip
    assert values.sizes("workload", {"kinds": {"a": kind}})["kinds"]["a"]["size"] == {"law": "fixed", "bytes": 2048}


def test_a_terminal_is_not_told_what_to_do() -> None:
    assert visible("a\x1b[31mb\x07\x9bc\u202ed\n") == "a\\x1b[31mb\\x07\\x9bc\\x202ed\n"


def test_markdown_shows_a_text_as_it_is() -> None:
    assert markdown("<b>a|b</b> [x](y) `*` \x1b\n&") == "&lt;b&gt;a\\|b&lt;/b&gt; \\[x\\](y) \\`\\*\\` \\\\x1b &amp;"
