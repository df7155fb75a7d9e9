"""Checks a workload's config before anything runs: every mistake is a ConfigError that names its key."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from kmemexp.errors import ConfigError
from kmemexp.sim.network import PACKET
from kmemexp.sim.slots import SERVED
from kmemexp.values import close
from kmemexp.workload import phases
from kmemexp.workload.laws import LIFETIME_LAWS, SIZE_LAWS
from kmemexp.workload.stream import CLASS_NAMES, KERNEL_CLASSES

SOURCES = ("synthetic", "trace")
TRACE_KEYS = ("name", "source", "copies", "shift_s", "window_s")
TRACE_FILES = ("trace", "path")  # one of them
TRACE_OPTIONS = ("digest", "interrupts", "start", "stream", "warnings")  # the plan sets digest and warnings
STREAMS = ("recorded", "law", "reconciled", "auto")  # auto: law where the import has it, else as recorded
STARTS = ("empty", "recorded")
SYNTHETIC_KEYS = ("name", "source", "duration_s", "scale", "phases", "kinds")
SYNTHETIC_OPTIONS = ("pause_ns", "bundles")
PHASE_KEYS = ("name", "seconds", "level")
PHASE_OPTIONS = ("groups", "once")
BUNDLE_KEYS = ("rate_hz", "lifetime", "members")
BUNDLE_OPTIONS = ("group", "remote")
KIND_KEYS = ("class", "size", "rate_hz", "lifetime")
KIND_OPTIONS = ("group", "start", "nowait", "soft", "remote", "growth", "limit", "fill", "shrinker", "pinned", "packet")
SHARES = ("nowait", "soft", "remote", "fill", "pinned")
LARGEST_FOLIO = 512  # pages: a huge page
MOST_KINDS = 2**15 - 1  # Stream.kind is int16
MOST_ROUNDS = 10_000  # repetitions of the phases
MOST_OPERATIONS = 2**31 - 1  # Stream.slot is int32
LARGEST_REQUEST = 2**31 - 1  # Stream.size is int32


def check(workload: Mapping[str, Any]) -> None:
    """Raise ConfigError (TraceError for a trace that cannot be found) unless `workload` can be built."""
    _mapping("workload", workload)
    source = workload.get("source")
    if source not in SOURCES:
        raise _wrong("workload.source", source, f"must be one of {_listed(SOURCES)}")
    if source == "trace":
        _check_trace(workload)
    else:
        _check_synthetic(workload)


def _check_trace(workload: Mapping[str, Any]) -> None:
    from kmemexp.workload.traces import library  # noqa: PLC0415  (only a trace needs it)

    _keys("workload", workload, TRACE_KEYS, (*TRACE_FILES, *TRACE_OPTIONS))
    _text("workload.name", workload["name"])
    files = [key for key in TRACE_FILES if key in workload]
    if len(files) != 1:
        raise ConfigError(f"workload.trace and workload.path: one of them names the recording, not {len(files)}")
    if workload[files[0]] == "":
        raise ConfigError(f"workload.{files[0]}: names the recording: a file, or one of {_listed(library.names())}")
    _text(f"workload.{files[0]}", workload[files[0]])
    for key, known in (("stream", STREAMS), ("start", STARTS)):
        if workload.get(key, known[0]) not in known:
            raise _wrong(f"workload.{key}", workload[key], f"must be one of {_listed(known)}")
    _whole("workload.copies", workload["copies"], 1)
    _number("workload.shift_s", workload["shift_s"])
    _number("workload.window_s", workload["window_s"])
    if not isinstance(workload.get("interrupts", False), bool):
        raise _wrong("workload.interrupts", workload["interrupts"], "must be true or false")
    if workload.get("start", STARTS[0]) != STARTS[0] and workload["copies"] > 1:
        raise ConfigError("workload.start=recorded: a machine has one past; set workload.copies=1")
    library.path_of(workload[files[0]])


def _check_synthetic(workload: Mapping[str, Any]) -> None:
    _keys("workload", workload, SYNTHETIC_KEYS, SYNTHETIC_OPTIONS)
    if "pause_ns" in workload:
        _positive("workload.pause_ns", workload["pause_ns"])
    _text("workload.name", workload["name"])
    _number("workload.duration_s", workload["duration_s"])
    _positive("workload.scale", workload["scale"])
    _mapping("workload.kinds", workload["kinds"])
    if not 0 < len(workload["kinds"]) <= MOST_KINDS:
        raise ConfigError(f"workload.kinds: there are {len(workload['kinds'])}, must be 1 to {MOST_KINDS}")
    for name, kind in workload["kinds"].items():
        _check_kind(f"workload.kinds.{name}", kind)
    _mapping("workload.bundles", workload.get("bundles", {}))
    for name, bundle in workload.get("bundles", {}).items():
        _check_bundle(f"workload.bundles.{name}", bundle, workload["kinds"])
    _check_phases(workload)
    operations = phases.expected_operations(workload)
    if operations > MOST_OPERATIONS:
        raise ConfigError(f"workload.scale: the load has {operations:.2g} operations; lower the scale or duration_s")


def _check_phases(workload: Mapping[str, Any]) -> None:
    if not isinstance(workload["phases"], list | tuple) or not workload["phases"]:
        raise ConfigError("workload.phases: must be a list of at least one phase")
    grouped = (*workload["kinds"].values(), *workload.get("bundles", {}).values())
    groups = sorted({row["group"] for row in grouped if row.get("group")})
    for i, phase in enumerate(workload["phases"]):
        where = f"workload.phases[{i}]"
        _mapping(where, phase)
        _keys(where, phase, PHASE_KEYS, PHASE_OPTIONS)
        _text(f"{where}.name", phase["name"])
        _positive(f"{where}.seconds", phase["seconds"])
        _number(f"{where}.level", phase["level"])
        if not isinstance(phase.get("once", False), bool):
            raise _wrong(f"{where}.once", phase["once"], "must be true or false")
        _mapping(f"{where}.groups", phase.get("groups", {}))
        for group, factor in phase.get("groups", {}).items():
            if group not in groups:
                raise ConfigError(f"{where}.groups.{group}: no kind has this group; there are {_listed(groups)}")
            _number(f"{where}.groups.{group}", factor)
    _check_rounds(workload)


def _check_rounds(workload: Mapping[str, Any]) -> None:
    """Check that the phases fill `duration_s`, in a reasonable number of rounds."""
    left = workload["duration_s"] - sum(p["seconds"] for p in workload["phases"])
    again = sum(p["seconds"] for p in workload["phases"] if not p.get("once", False))
    if left > 0 and again == 0:
        raise ConfigError("workload.duration_s: longer than the phases, all of which are marked once")
    if left > MOST_ROUNDS * again:
        raise ConfigError(f"workload.duration_s: repeats the phases more than {MOST_ROUNDS} times")


def _check_bundle(where: str, bundle: Any, kinds: Mapping[str, Any]) -> None:
    _mapping(where, bundle)
    _keys(where, bundle, BUNDLE_KEYS, BUNDLE_OPTIONS)
    _number(f"{where}.rate_hz", bundle["rate_hz"])
    _check_law(f"{where}.lifetime", bundle["lifetime"], {k: v for k, v in LIFETIME_LAWS.items() if k != "fill_to"})
    if not isinstance(bundle.get("group", ""), str):
        raise _wrong(f"{where}.group", bundle["group"], "must be a word")
    if _number(f"{where}.remote", bundle.get("remote", 0)) > 1:
        raise _wrong(f"{where}.remote", bundle["remote"], "is a share: must be 0 to 1")
    if not isinstance(bundle["members"], list | tuple) or not bundle["members"]:
        raise ConfigError(f"{where}.members: must be a list of at least one member")
    for i, member in enumerate(bundle["members"]):
        _check_member(f"{where}.members[{i}]", member, kinds)


def _check_member(where: str, member: Any, kinds: Mapping[str, Any]) -> None:
    _mapping(where, member)
    _keys(where, member, ("kind",), tuple(phases.MEMBER))
    if member["kind"] not in kinds:
        raise _wrong(f"{where}.kind", member["kind"], f"must be one of {_listed(sorted(kinds))}")
    if kinds[member["kind"]]["class"] not in KERNEL_CLASSES:
        raise _wrong(f"{where}.kind", member["kind"], "is of a class that has physical pages alone")
    _whole(f"{where}.count", member.get("count", 1), 1)
    for key in ("born", "waits_s", "dies", "lingers_s"):
        pair = member.get(key, phases.MEMBER[key])
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _wrong(f"{where}.{key}", pair, "must be two numbers, from and to")
        low, high = (_number(f"{where}.{key}", value) for value in pair)
        if low > high or (not key.endswith("_s") and high > 1):
            raise _wrong(f"{where}.{key}", pair, "must rise" if low > high else "are shares of a life: must be 0 to 1")


def _check_kind(where: str, kind: Any) -> None:
    _mapping(where, kind)
    _keys(where, kind, KIND_KEYS, KIND_OPTIONS)
    if kind["class"] not in CLASS_NAMES:
        raise _wrong(f"{where}.class", kind["class"], f"must be one of {_listed(CLASS_NAMES)}")
    _number(f"{where}.rate_hz", kind["rate_hz"])
    _check_law(f"{where}.size", kind["size"], SIZE_LAWS)
    _check_law(f"{where}.lifetime", kind["lifetime"], LIFETIME_LAWS)
    if kind["class"] == "zone" and kind["size"]["law"] != "fixed":
        raise _wrong(f"{where}.size.law", kind["size"]["law"], "a zone has items of one size: must be 'fixed'")
    if not isinstance(kind.get("group", ""), str):
        raise _wrong(f"{where}.group", kind["group"], "must be a word")
    for key in ("start", "growth", "limit"):
        _whole(f"{where}.{key}", kind.get(key, 0), 0)
    _check_pages(where, kind)
    _check_packet(where, kind)
    for key in SHARES:
        if _number(f"{where}.{key}", kind.get(key, 0)) > 1:
            raise _wrong(f"{where}.{key}", kind[key], "is a share: must be 0 to 1")


def _check_packet(where: str, kind: Mapping[str, Any]) -> None:
    """Check a kind of mbufs with their clusters."""
    if not isinstance(kind.get("packet", False), bool):
        raise _wrong(f"{where}.packet", kind["packet"], "must be true or false")
    if not kind.get("packet"):
        return
    if kind["class"] != "mbuf":
        raise _wrong(f"{where}.class", kind["class"], "packets are of class mbuf")
    if kind["size"]["law"] != "fixed" or kind["size"]["bytes"] != PACKET:
        raise ConfigError(f"{where}.size: a packet is an mbuf and a cluster: must be fixed, of {PACKET} bytes")


def _check_pages(where: str, kind: Mapping[str, Any]) -> None:
    """Check what is said of physical pages, and of what a shrinker may free."""
    pages = kind["class"] not in KERNEL_CLASSES
    growth = kind.get("growth", 0)
    if pages and growth and (growth & (growth - 1) or growth > LARGEST_FOLIO):
        raise _wrong(f"{where}.growth", growth, f"must be a power of two of at most {LARGEST_FOLIO} pages")
    if "fill" in kind and not pages:
        raise ConfigError(f"{where}.fill: is a share of the physical memory; {kind['class']} has KVA of its own")
    if "shrinker" in kind:
        _text(f"{where}.shrinker", kind["shrinker"])
        if kind["class"] not in SERVED:
            raise ConfigError(f"{where}.shrinker: frees objects of {_listed(SERVED)}, not of {kind['class']}")
    elif "pinned" in kind:
        raise ConfigError(f"{where}.pinned: is the share that no shrinker may free, but there is no shrinker")


def _check_law(where: str, law: Any, known: Mapping[str, tuple[str, ...]]) -> None:
    _mapping(where, law)
    if law.get("law") not in known:
        raise _wrong(f"{where}.law", law.get("law"), f"must be one of {_listed(known)}")
    _keys(where, law, ("law", *known[law["law"]]))
    for key in known[law["law"]]:
        values = law[key] if isinstance(law[key], list | tuple) else [law[key]]
        for value in values:
            _law_value(f"{where}.{key}", key, value)
    if "weights" in law:
        _check_weights(where, law)
    if law.get("low_bytes", 0) > law.get("high_bytes", LARGEST_REQUEST):
        raise ConfigError(f"{where}.low_bytes: {law['low_bytes']} is more than high_bytes, {law['high_bytes']}")


def _law_value(where: str, key: str, value: Any) -> None:
    if key.endswith("bytes"):
        if _whole(where, value, 1) > LARGEST_REQUEST:
            raise _wrong(where, value, f"must be at most {LARGEST_REQUEST}")
    elif key == "weights":
        _number(where, value)
    else:
        _positive(where, value)


def _check_weights(where: str, law: Mapping[str, Any]) -> None:
    (other,) = law.keys() - {"law", "weights"}
    for key in ("weights", other):
        if not isinstance(law[key], list | tuple):
            raise _wrong(f"{where}.{key}", law[key], "must be a list")
    if len(law["weights"]) != len(law[other]):
        raise ConfigError(f"{where}.weights: has {len(law['weights'])} entries, {other} has {len(law[other])}")
    if sum(law["weights"]) <= 0:
        raise ConfigError(f"{where}.weights: at least one must be above 0")


def _keys(where: str, given: Mapping[str, Any], needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Complain of a missing or an unknown key."""
    for key in needed:
        if key not in given:
            raise ConfigError(f"{where}.{key}: is missing")
    for key in given:
        if key not in (known := [*needed, *optional]):
            raise ConfigError(f"{where}.{key}: unknown key{close(key, known)}; there are {_listed(known)}")


def _mapping(where: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise _wrong(where, value, "must be a mapping")


def _text(where: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise _wrong(where, value, "must be a text")


def _number(where: str, value: Any) -> float:
    """Return a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _wrong(where, value, "must be a number of at least 0")
    return value


def _positive(where: str, value: Any) -> None:
    if _number(where, value) == 0:
        raise _wrong(where, value, "must be above 0")


def _whole(where: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _wrong(where, value, f"must be a whole number of at least {least}")
    return value


def _wrong(where: str, value: Any, rule: str) -> ConfigError:
    return ConfigError(f"{where}: {rule}, not {value!r}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(n) for n in names)
