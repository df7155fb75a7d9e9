"""Opening a trace: what it is by its content, and its text in blocks of whole lines."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from kmemexp.errors import TraceError
from kmemexp.workload.traces import recognise

BLOCK = 1 << 25  # bytes of text read at once
LONGEST = 1 << 20  # no line of a trace is longer
LONGEST_HTML = 1 << 26  # but a page that shows one has its program in a line
SNIFF = 1 << 16
HTML = "systrace HTML"

CONTROLS = bytes(set(range(32)) - set(b"\t\n\r"))

ZSTD = b"\x28\xb5\x2f\xfd"
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
_PERF = re.compile(rb"^.*\s\d+\.\d+:\s+(?:\d+\s+)?\w+:\w+: ", re.MULTILINE)
_PERFETTO = re.compile(rb"^.*\( *\d+\) \[\d+\]\s+\S+\s+\d+\.\d+: kmem_?\w*: bytes_alloc=", re.MULTILINE)
_FLAGS = re.compile(rb"^.*\[\d+\]\s+[^\s\d]\S+\s+\d+\.\d+:\s", re.MULTILINE)


def is_parquet(path: Path) -> bool:
    """Whether this is an imported trace. Raises TraceError where there is no readable file."""
    return _first_bytes(path).startswith(PARQUET)


def text_format(beginning: bytes) -> str:
    """Name the program that printed this: "ftrace", "trace-cmd report", "perf script", or a page that holds a trace."""
    beginning = beginning.removeprefix(b"\xef\xbb\xbf")
    if recognise.is_html(beginning):
        return HTML
    if _PERFETTO.search(beginning):
        return "Perfetto"
    if beginning.startswith(b"# tracer"):
        return "ftrace"
    if _PERF.search(beginning):
        return "perf script"
    if beginning.startswith((b"cpus=", b"version =")) or not _FLAGS.search(beginning):
        return "trace-cmd report"
    return "ftrace"


def text_blocks(
    path: Path, block: int = BLOCK, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[bytes, int, bool]]:
    """Yield (bytes, end of the last whole line in them, whether a last line without its end was dropped).

    Decompresses gzip and zstd. `progress` is called with the position in the file as it is on disk.
    Raises TraceError, with the line number, where the file is empty, binary, or its compression is damaged.
    """
    begin = _first_bytes(path)
    if what := recognise.binary(begin, path.name):
        raise TraceError(f"{path}: line 1: {what}")
    if not begin:
        raise TraceError(f"{path}: line 1: the file is empty")
    lines = 0
    rest = b""
    longest = LONGEST
    with path.open("rb") as raw:
        read = _reader(raw, begin)
        while True:
            piece, fault = read(block)
            data = rest + piece
            if not lines:
                _check_text(path, data)
                longest = LONGEST_HTML if recognise.is_html(data[:SNIFF]) else LONGEST
            end = data.rfind(b"\n") + 1
            rest = data[end:]
            if progress:
                progress(raw.tell())
            at_end = fault is not None or not piece
            if end or (at_end and rest):
                yield data, end, bool(at_end and rest)
            lines += data.count(b"\n", 0, end)
            if fault:
                raise TraceError(
                    f"{path}: line {lines + 1}: the compressed data end or break off here ({fault}); "
                    "decompress what can be read and import that"
                )
            if not piece:
                return
            if len(rest) > longest:
                raise TraceError(f"{path}: line {lines + 1}: longer than {longest:,} bytes; this is not a trace")


def _check_text(path: Path, data: bytes) -> None:
    """Raise TraceError where the beginning of the (decompressed) data is no text."""
    if what := recognise.binary(data, path.stem):
        raise TraceError(f"{path}: line 1: compressed, and inside it {what}; decompress it first")
    if _is_binary(data[:SNIFF]):
        raise TraceError(f"{path}: line 1: {recognise.binary_data(data)}")


def _is_binary(beginning: bytes) -> bool:
    """Whether more than 2 % are control characters: a damaged line or two do not make a text binary."""
    return 50 * (len(beginning) - len(beginning.translate(None, CONTROLS))) > len(beginning)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from None


def _reader(raw: BinaryIO, begin: bytes) -> Callable[[int], tuple[bytes, str | None]]:
    """Return read(n) -> (about n bytes, or none at the end; what is wrong with the compression, or None)."""
    if begin.startswith(ZSTD):
        return _zstd_reader(raw)
    if begin.startswith(GZIP):
        return _gzip_reader(raw)
    return lambda n: (raw.read(n), None)


def _gzip_reader(raw: BinaryIO) -> Callable[[int], tuple[bytes, str | None]]:
    file = gzip.GzipFile(fileobj=raw)

    def read(n: int) -> tuple[bytes, str | None]:
        pieces: list[bytes] = []
        try:
            while n > 0 and (piece := file.read1(min(n, 1 << 20))):
                pieces.append(piece)
                n -= len(piece)
        except (EOFError, OSError, zlib.error) as error:
            return b"".join(pieces), str(error)
        return b"".join(pieces), None

    return read


def _zstd_reader(raw: BinaryIO) -> Callable[[int], tuple[bytes, str | None]]:
    """Read frame after frame; zstandard's own reader takes a cut-off frame for a complete one."""
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    begun = False  # inside a frame

    def read(n: int) -> tuple[bytes, str | None]:
        nonlocal frame, begun
        pieces: list[bytes] = []
        try:
            while n > 0:
                data = raw.read(1 << 15)
                if not data:
                    return b"".join(pieces), "a frame is not complete" if begun else None
                while data:
                    piece = frame.decompress(data)
                    pieces.append(piece)
                    n -= len(piece)
                    begun, data = not frame.eof, b""
                    if frame.eof:
                        data, frame = frame.unused_data, decompressor.decompressobj()
        except zstandard.ZstdError as error:
            return b"".join(pieces), str(error)
        return b"".join(pieces), None

    return read
