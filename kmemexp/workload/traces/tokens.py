"""Words and numbers inside a line of trace text: small kernels over bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmemexp.jit import kernel
from kmemexp.workload.traces import schema as sc

Text = NDArray[np.uint8]
Byte = Any
"""An element of Text: a NumPy scalar once compiled code is off, an integer in compiled code."""

SPACE, TAB, NEWLINE = 32, 9, 10
HASH, PAREN, CLOSE_PAREN, DOT, ZERO, NINE, COLON, EQUALS, BRACKET, CLOSE, BAR, X = (ord(c) for c in "#().09:=[]|x")
LATEST_S = 9_000_000_000  # seconds that fit int64 as nanoseconds
PLUS, BACKSLASH, U, S, N, T, ONE = (ord(c) for c in "+\\usnt1")


def words(texts: Sequence[str]) -> tuple[Text, np.ndarray]:
    """Return words as the rows of a table of bytes (uint8[n, longest]), and their lengths."""
    lengths = np.array([len(t) for t in texts])
    return np.array([list(t.encode().ljust(lengths.max())) for t in texts], np.uint8), lengths


@kernel
def skip(text: Text, at: int, end: int) -> int:
    """First byte that is not blank."""
    while at < end and text[at] in (SPACE, TAB):
        at += 1
    return at


@kernel
def token(text: Text, at: int, end: int) -> int:
    """End of the token that begins at `at`."""
    while at < end and text[at] != SPACE and text[at] != TAB:
        at += 1
    return at


@kernel
def find(text: Text, at: int, end: int, byte: int) -> int:
    """First byte that is `byte`, or the end."""
    while at < end and text[at] != byte:
        at += 1
    return at


@kernel
def same(text: Text, at: int, end: int, word: Text) -> bool:
    """Whether text[at:end] equals the first bytes of a word."""
    for i in range(end - at):  # noqa: SIM110 - a generator does not compile
        if text[at + i] != word[i]:
            return False
    return True


@kernel
def which(text: Text, at: int, end: int, table: Text, lengths: np.ndarray) -> int:
    """Row of the word that text[at:end] is, or -1."""
    for row in range(len(lengths)):
        if lengths[row] == end - at and same(text, at, end, table[row]):
            return row
    return -1


@kernel
def key_end(text: Text, at: int, end: int) -> int:
    """Where the value of `key=value` or `key:` begins; at if there is none."""
    for i in range(at, end):
        if text[i] in (EQUALS, COLON):
            return i + 1
    return at


@kernel
def is_digit(byte: Byte) -> bool:
    """Whether a byte is a decimal digit."""
    return bool(ZERO <= byte <= NINE)


@kernel
def digit(byte: Byte) -> int:
    """Value of a hex digit, or -1."""
    value = -1
    if ZERO <= byte <= NINE:
        value = byte - np.int64(ZERO)
    elif ord("a") <= byte <= ord("f"):
        value = byte - np.int64(ord("a") - 10)
    return value


@kernel
def decimal(text: Text, at: int, end: int) -> tuple[int, int]:
    """Read decimal digits, at most 18. Returns (value, end)."""
    value = 0
    stop = min(end, at + 18)
    while at < stop and is_digit(text[at]):
        value = value * 10 + (text[at] - np.int64(ZERO))
        at += 1
    return value, at


@kernel
def number(text: Text, at: int, end: int) -> tuple[int, bool]:
    """Read a whole token as a number, decimal or hex with 0x. Returns (value, ok)."""
    if end - at > 2 and text[at] == ZERO and text[at + 1] == X:
        value, ok = address(text, at, end, True)
        return value, ok and value < 1 << 60
    value, stop = decimal(text, at, end)
    return value, stop == end and stop > at and stop - at <= 18


@kernel
def address(text: Text, at: int, end: int, hexadecimal: bool) -> tuple[int, bool]:
    """Read a whole token as an address of 63 bits: decimal, or hex where so said or prefixed. Returns (value, ok)."""
    if end - at > 2 and text[at] == ZERO and text[at + 1] == X:
        at += 2
        hexadecimal = True
    if at >= end or (hexadecimal and end - at > 16):
        return 0, False
    base = 16 if hexadecimal else 10
    low, high = 0, 0  # in halves: 64 unsigned bits do not fit an int64
    for i in range(at, end):
        value = digit(text[i])
        if value < 0 or value >= base:
            return 0, False
        low = low * base + value
        high = (high * base + (low >> 32)) & 0x7FFFFFFF
        low &= 0xFFFFFFFF
    return (high << 32) | low, True


@kernel
def seconds(text: Text, at: int, end: int) -> tuple[int, int]:
    """Read `seconds.fraction:`. Returns (ns, end) or (0, -1)."""
    whole, dot = decimal(text, at, end)
    if dot == at or dot >= end or text[dot] != DOT or whole > LATEST_S:
        return 0, -1
    part, stop = decimal(text, dot + 1, end)
    if stop == dot + 1 or stop - dot > 10 or stop >= end or text[stop] != COLON:
        return 0, -1
    for _ in range(10 - (stop - dot)):
        part *= 10
    return whole * 1_000_000_000 + part, stop + 1


@kernel
def ticks(text: Text, at: int, end: int) -> tuple[int, int, int]:
    """Read a time without a point: `123:` of a counter, or `123us!:` of the latency format.

    Returns (ns, or what the counter says; end or -1; 1 where it is a counter).
    """
    whole, stop = decimal(text, at, end)
    if stop == at or stop >= end:
        return 0, -1, 0
    if text[stop] == COLON:
        return whole, stop + 1, 1
    if stop + 2 < end and text[stop] == U and text[stop + 1] == S and stop - at < 16:
        after = stop + 2 if text[stop + 2] == COLON else stop + 3  # one character marks what took long
        if after < end and text[after] == COLON:
            return 1000 * whole, after + 1, 0
    return 0, -1, 0


@kernel
def flag(byte: Byte) -> int:
    """Context that ftrace's third flag tells."""
    if byte == ord("s"):
        return sc.SOFTIRQ
    if byte in (ord("h"), ord("H")):
        return sc.HARDIRQ
    if byte in (ord("z"), ord("Z")):
        return sc.NMI
    return sc.TASK
