"""Seconds and peak memory of importing and counting a long trace: the compile recording, repeated with shifted times.

    python benchmarks/bench_traces.py [--lines 10000000] [--trace ../shared/traces/compile.txt.zst] [--few]

Each step runs in a process of its own; compiled code is warmed first, as on any run but the first after an edit.
`--few` counts a thousand lines of a recording that it makes up, in one process for all steps.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zstandard

TIME = re.compile(rb"(?m)^(.{0,40}?\] \S+ +)(\d+)(?=\.\d+: )")
IMPORT = "from kmemexp.workload.traces.importer import Options, import_trace; "
STATS = "from kmemexp.workload.traces.stats import stats; "
STEPS = {
    "import as recorded": IMPORT + "import_trace({path}, {out}, options=Options(as_recorded=True))",
    "import": IMPORT + "import_trace({path}, {out})",
    "import --compact": IMPORT + "import_trace({path}, {out}.with_suffix('.compact'), compact=True)",
    "stats of text": STATS + "stats({path})",
    "stats of Parquet": STATS + "stats({out})",
    "load of Parquet": "from kmemexp.workload.traces import library; library.load(str({out}))",
}


def build(trace: Path, target: Path, lines: int) -> int:
    """Write the trace's lines again and again, each time 100 seconds later. Returns the lines written."""
    with trace.open("rb") as raw:
        text = zstandard.ZstdDecompressor().stream_reader(raw).read()
    body = text[text.index(b"\ntask-") + 1 :]
    count = body.count(b"\n")
    written = 0
    with target.open("wb") as out:
        while written < lines:
            shift = 100 * (written // count)
            shifted = TIME.sub(lambda m, shift=shift: m[1] + str(int(m[2]) + shift).encode(), body)
            if written + count > lines:
                shifted = b"".join(shifted.splitlines(keepends=True)[: lines - written])
            out.write(shifted)
            written += min(count, lines - written)
    return written


def made_up(target: Path, pairs: int = 300) -> Path:
    """Write a recording of a few allocations, each freed by the line after it."""
    head = "task-12 [000] .....   973.{:06}: {}: call_site=f+0x1/0x2 ptr=ffff888105ec0e40"
    made = " bytes_req=100 bytes_alloc=128 gfp_flags=GFP_KERNEL node=-1"
    lines = [head.format(i, "kfree" if i % 2 else "kmalloc") + ("" if i % 2 else made) for i in range(2 * pairs)]
    target.write_bytes(zstandard.compress("\n".join(["# tracer: nop", *lines, ""]).encode()))
    return target


def measure(code: str) -> tuple[float, float]:
    """Run Python code in a new process. Returns (seconds, peak GiB)."""
    # VmHWM, because ru_maxrss begins with what the parent had.
    tail = "\nimport re; print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from pathlib import Path; " + code + tail], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - start, int(done.stdout) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared" / "traces"
    parser.add_argument("--trace", type=Path, default=shared / "compile.txt.zst")
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.few:
            args.trace, args.lines = made_up(Path(folder) / "few.txt.zst"), 1000
        path, out = Path(folder) / "long.txt", Path(folder) / "long.parquet"
        small = Path(folder) / "small.txt"
        build(args.trace, small, 1000)
        for code in () if args.few else STEPS.values():
            measure(code.format(path=f"Path({str(small)!r})", out=f"Path({str(Path(folder) / 'small.parquet')!r})"))
        lines = build(args.trace, path, args.lines)
        print(f"{lines:,} lines, {path.stat().st_size / 1e9:.2f} GB")
        for name, code in {"all steps": "\n".join(STEPS.values())}.items() if args.few else STEPS.items():
            seconds, gib = measure(code.format(path=f"Path({str(path)!r})", out=f"Path({str(out)!r})"))
            print(f"{name:<18} {seconds:7.1f} s   {gib:5.2f} GiB", flush=True)
        seconds, gib = measure(STEPS["stats of text"].format(path=f"Path({str(args.trace)!r})"))
        print(f"stats of {args.trace.name}: {seconds:.1f} s, {gib:.2f} GiB")


if __name__ == "__main__":
    main()
