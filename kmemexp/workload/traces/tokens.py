"""Words and numbers inside a line of trace text: small kernels over bytes."""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel
from kmemexp.workload.traces import schema as sc

SPACE, TAB, NEWLINE = 32, 9, 10
HASH, PAREN, CLOSE_PAREN, DOT, ZERO, NINE, COLON, EQUALS, BRACKET, CLOSE, BAR, X = (ord(c) for c in "#().09:=[]|x")


def words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return words as the rows of a table of bytes (uint8[n, longest]), and their lengths."""
    lengths = np.array([len(t) for t in texts])
    return np.array([list(t.encode().ljust(lengths.max())) for t in texts], np.uint8), lengths


FLAG_TEXT, FLAG_LENGTH = words(("GFP_ATOMIC", "GFP_NOWAIT"))


@kernel
def skip(text, at, end):
    """First byte that is not blank."""
    while at < end and text[at] in (SPACE, TAB):
        at += 1
    return at


@kernel
def token(text, at, end):
    """End of the token that begins at `at`."""
    while at < end and text[at] != SPACE and text[at] != TAB:
        at += 1
    return at


@kernel
def find(text, at, end, c):
    """First byte that is `c`, or the end."""
    while at < end and text[at] != c:
        at += 1
    return at


@kernel
def same(text, at, end, word):
    """Whether text[at:end] equals the first bytes of a word."""
    for i in range(end - at):  # noqa: SIM110 - a generator does not compile
        if text[at + i] != word[i]:
            return False
    return True


@kernel
def which(text, at, end, table, lengths):
    """Row of the word that text[at:end] is, or -1."""
    for w in range(len(lengths)):
        if lengths[w] == end - at and same(text, at, end, table[w]):
            return w
    return -1


@kernel
def key_end(text, at, end):
    """Where the value of `key=value` or `key:` begins; at if there is none."""
    for i in range(at, end):
        if text[i] in (EQUALS, COLON):
            return i + 1
    return at


@kernel
def is_digit(c):
    return ZERO <= c <= NINE


@kernel
def digit(c):
    """Value of a hex digit, or -1."""
    if ZERO <= c <= NINE:
        return np.int64(c) - ZERO
    if ord("a") <= c <= ord("f"):
        return np.int64(c) - (ord("a") - 10)
    return -1


@kernel
def decimal(text, at, end):
    """Read decimal digits, at most 18. Returns (value, end)."""
    value = 0
    stop = min(end, at + 18)
    while at < stop and is_digit(text[at]):
        value = value * 10 + np.int64(text[at]) - ZERO
        at += 1
    return value, at


@kernel
def number(text, at, end):
    """Read a whole token as a decimal number. Returns (value, ok)."""
    value, stop = decimal(text, at, end)
    return value, stop == end and stop > at and stop - at <= 18


@kernel
def address(text, at, end, hexadecimal):
    """Read a whole token as an address of 63 bits: decimal, or hex where so said or prefixed. Returns (value, ok)."""
    if end - at > 2 and text[at] == ZERO and text[at + 1] == X:
        at += 2
        hexadecimal = True
    if at >= end or (hexadecimal and end - at > 16):
        return 0, False
    base = 16 if hexadecimal else 10
    low, high = 0, 0  # in halves: 64 unsigned bits do not fit an int64
    for i in range(at, end):
        d = digit(text[i])
        if d < 0 or d >= base:
            return 0, False
        low = low * base + d
        high = (high * base + (low >> 32)) & 0x7FFFFFFF
        low &= 0xFFFFFFFF
    return (high << 32) | low, True


@kernel
def seconds(text, at, end):
    """Read `seconds.fraction:`. Returns (ns, end) or (0, -1)."""
    whole, dot = decimal(text, at, end)
    if dot == at or dot - at > 9 or dot >= end or text[dot] != DOT:
        return 0, -1
    part, stop = decimal(text, dot + 1, end)
    if stop == dot + 1 or stop - dot > 10 or stop >= end or text[stop] != COLON:
        return 0, -1
    for _ in range(10 - (stop - dot)):
        part *= 10
    return whole * 1_000_000_000 + part, stop + 1


@kernel
def flag(c):
    """Context that ftrace's third flag tells."""
    if c == ord("s"):
        return sc.SOFTIRQ
    if c in (ord("h"), ord("H")):
        return sc.HARDIRQ
    if c in (ord("z"), ord("Z")):
        return sc.NMI
    return sc.TASK


@kernel
def cannot_sleep(text, at, end):
    """Whether one of the GFP flags is GFP_ATOMIC or GFP_NOWAIT."""
    while at < end:
        stop = at
        while stop < end and text[stop] != BAR:
            stop += 1
        if which(text, at, stop, FLAG_TEXT, FLAG_LENGTH) >= 0:
            return True
        at = stop + 1
    return False
