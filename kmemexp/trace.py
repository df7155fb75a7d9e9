"""Command line for kernel traces: record, import, count, predict.

python -m kmemexp.trace record --seconds 10 -o load.txt.zst      (on the Linux machine in question, as root)
python -m kmemexp.trace import load.txt.zst -o load.parquet
python -m kmemexp.trace stats load.parquet
python -m kmemexp.trace predict load.txt.zst
"""

import argparse
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from kmemexp.errors import InputError, TraceError

IMPORT_HELP = """\
Reads ftrace text (the file `trace` or `trace_pipe`), `trace-cmd report`, `perf script`, Perfetto or systrace text or
HTML, of Linux 2.6.31 and later, told apart by their content, plain or compressed (.gz, .zst), and writes one row per
event to a Parquet file. Lines that cannot be read are left out and reported with their numbers; what a recording
lacks is said too, and stands in the file.

examples:
  cat /sys/kernel/tracing/trace > t.txt;             python -m kmemexp.trace import t.txt -o t.parquet
  trace-cmd report -i trace.dat > t.txt;             python -m kmemexp.trace import t.txt -o t.parquet
  perf script -i perf.data | zstd > t.txt.zst;       python -m kmemexp.trace import t.txt.zst -o t.parquet
  python -m kmemexp workload=trace workload.path=t.parquet                    replays it

Deaths and births that left no event are inferred and added, marked, after the rows of the recording: `stats` counts
them, workload.stream=recorded,law chooses."""
STATS_HELP = """\
Prints what `perf kmem stat` prints (bytes requested and allocated, fragmentation, ping-pong, by cache) and more:
lifetimes, contexts, KVA, interrupts, and what the same requests cost in the size classes of 4.4BSD, UMA and DragonFly.

examples:
  python -m kmemexp.trace stats t.txt.zst
  python -m kmemexp.trace stats pgbench      one of the traces that come with kmemexp
  python -m kmemexp.trace stats t.parquet --json | jq .peak"""
RECORD_HELP = """\
Records allocations, frees, KVA operations and interrupts of the running kernel through tracefs, in a tracing instance
of its own, which is always removed afterwards. Needs Linux, root and a mounted tracefs. Ctrl-C ends it early.
Beside it, as load.before.* and load.after.*, stand the kernel's own counts (slabinfo, /sys/kernel/slab, a map of slab
pages, buddyinfo …), from which an import tells what was there before and what left no event.

examples:
  sudo python -m kmemexp.trace record --seconds 10 -o load.txt.zst
  sudo python -m kmemexp.trace record --seconds 10 -o load.parquet      imports it at once"""

PREDICT_HELP = """\
Plays a recording on SLUB as the sweeps simulate it (design linux_6_18), from the slabs that were there, and compares
the slabs at the end with the kernel's own counts, cache by cache. It needs the text, and beside it the counts from
before and after that `record` takes, or an import of both. Each cache has a grade: what its figure rests on. D uses
nothing from after, F the counts of objects (not of slabs) after, K a map of slab pages from before, N those counts and
no allocator at all: a model that is not better than N earns nothing.

examples:
  python -m kmemexp.trace predict removal                               a shipped recording
  python -m kmemexp.trace predict load.txt.zst --by law -o table.csv"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 1 with one message where the input is wrong."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except InputError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough; nothing may be left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m kmemexp.trace", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="record|import|stats|predict")

    command = commands.add_parser("import", help="text to Parquet", description=IMPORT_HELP, formatter_class=raw)
    command.add_argument("file", type=Path, help="text of a trace, plain, .gz or .zst")
    command.add_argument("-o", "--out", type=Path, required=True, help="Parquet file to write")
    command.add_argument("--compact", action="store_true", help="smallest file: leave out what can be looked up")
    command.add_argument("--as-recorded", action="store_true", help="infer no deaths and births that left no event")
    command.add_argument(
        "--snapshots",
        default="",
        metavar="PREFIX",
        help="counts before and after, PREFIX.before.slabinfo …; those beside the file are found anyway",
    )
    command.set_defaults(run=_import)

    command = commands.add_parser("stats", help="figures of a trace", description=STATS_HELP, formatter_class=raw)
    command.add_argument("file", type=Path, help="text of a trace, what import wrote, or a shipped trace by name")
    command.add_argument("--json", action="store_true", help="print one JSON object with every figure")
    command.set_defaults(run=_stats)

    command = commands.add_parser(
        "predict", help="predict the kernel's slabs", description=PREDICT_HELP, formatter_class=raw
    )
    command.add_argument("file", type=Path, help="text of a trace, what import wrote, or a shipped trace by name")
    command.add_argument("--snapshots", default="", metavar="PREFIX", help="counts before and after, if not beside it")
    command.add_argument("--by", choices=("law", "counts", "map"), default="counts", help="which prediction is shown")
    command.add_argument("-o", "--out", type=Path, help="write the table of all caches: .parquet or .csv")
    command.set_defaults(run=_predict)

    command = commands.add_parser("record", help="record on Linux", description=RECORD_HELP, formatter_class=raw)
    command.add_argument("--seconds", type=_seconds, required=True, metavar="N", help="how long")
    command.add_argument("-o", "--out", type=Path, required=True, help="text, .gz, .zst or .parquet")
    command.add_argument("--no-snapshots", action="store_true", help="leave out the kernel's counts before and after")
    command.add_argument("--tracefs", type=Path, metavar="DIR", help="root of tracefs, if not where it is usually")
    command.set_defaults(run=_record)
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _import(args: argparse.Namespace) -> None:
    from kmemexp.workload.traces.importer import Options, import_trace  # noqa: PLC0415 - --help needs no Numba

    options = Options(args.compact, args.as_recorded, args.snapshots)
    with _progress(args.file) as update:
        report = import_trace(args.file, args.out, options=options, progress=update)
    _tell(report.__dict__)
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"{args.out}: {report.events:,} events of {report.lines:,} lines ({report.format})", highlight=False)


def _stats(args: argparse.Namespace) -> None:
    from kmemexp.workload.traces import show  # noqa: PLC0415
    from kmemexp.workload.traces.stats import stats  # noqa: PLC0415

    path = _found(args.file)
    with _progress(path) as update:
        figures = stats(path, update)
    if args.json:
        print(json.dumps(figures, indent=1))  # noqa: T201 - this is the output
    else:
        show.show(figures, Console(width=None if sys.stdout.isatty() else 160))


def _found(path: Path) -> Path:
    """The file of a shipped recording, where a name of one is given and no such file is there."""
    from kmemexp.workload.traces import library  # noqa: PLC0415 - --help needs none of it

    return library.path_of(str(path)) if not path.exists() and str(path) in library.names() else path


def _predict(args: argparse.Namespace) -> None:
    from kmemexp.predict import methods, table  # noqa: PLC0415 - --help needs no Numba

    if args.out:
        _check_folder(args.out)
    path = _found(args.file)
    with _progress(path) as update:
        found = methods.predict(path, args.snapshots, update)
    method = table.chosen(found, args.by)
    width = None if sys.stdout.isatty() else 140
    table.show(found, method, f"{args.file}: slabs by {method.name} ({method.uses})", Console(width=width))
    if args.out:
        table.write(found, method, args.out)


def _record(args: argparse.Namespace) -> None:
    from kmemexp.workload.lives.snapshots import prefix_of  # noqa: PLC0415
    from kmemexp.workload.traces import capturing, record  # noqa: PLC0415

    console = Console(stderr=True, soft_wrap=True)
    _check_folder(args.out)

    def to(text: Path) -> record.Recording:
        snapshot = None if args.no_snapshots else functools.partial(capturing.capture, prefix_of(text))
        return record.record(args.seconds, text, root=args.tracefs, snapshot=snapshot)

    if args.out.suffix == ".parquet":
        from kmemexp.workload.traces.importer import import_trace  # noqa: PLC0415

        with tempfile.TemporaryDirectory(dir=args.out.resolve().parent) as folder:
            text = Path(folder) / "trace.txt.zst"
            result = to(text)
            _tell(import_trace(text, args.out).__dict__)
    else:
        result = to(args.out)
    if result.no_snapshot:
        names = ", ".join(result.no_snapshot)
        console.print(
            f"these counts of the kernel could not be read: {names} (root? CONFIG_SLUB_DEBUG?)", style="yellow"
        )
    for event in result.missing:
        console.print(f"this kernel has no event {event}: recorded without it", style="yellow")
    if result.lost_events:
        console.print(f"{result.lost_events:,} events were lost: the buffers were full", style="yellow")
    early = " (ended early by a signal)" if result.interrupted else ""
    console.print(f"{args.out}: {result.bytes_text:,} bytes of text{early}", highlight=False)


def _check_folder(out: Path) -> None:
    if not out.resolve().parent.is_dir():
        raise TraceError(f"{out}: the folder {out.resolve().parent} does not exist")


def _tell(report: dict[str, Any]) -> None:
    """Report damage on stderr."""
    from kmemexp.workload.traces import warnings  # noqa: PLC0415

    for line in warnings.damage(report):
        Console(stderr=True, soft_wrap=True).print(line, style="yellow", markup=False, highlight=False)


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None] | None]:
    """Show a bar of the bytes read, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal or not path.is_file():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(path.name, total=path.stat().st_size)
        yield lambda position: bar.update(task, completed=position)


if __name__ == "__main__":
    sys.exit(main())
