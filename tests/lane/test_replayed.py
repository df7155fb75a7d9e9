"""Whole lanes: what a machine looks like after boot, what must balance after a run, and that nothing depends on how."""

import json

import numpy as np
import pytest
from small_cell import DESIGNS, KINDS, LOAD, MIB, OBJECTS, cell

from kmemexp.boot.machine import Machine, boot
from kmemexp.errors import ConfigError
from kmemexp.lane import caches, model, replayed, runaway, simulate_lanes, surveying, users
from kmemexp.metrics import INDEX, NAMES, SERIES, SPACE, STALE, TIMED
from kmemexp.sim import maps, sizing
from kmemexp.sim.arenas import vm_map
from kmemexp.sim.arenas._shared.map_entries import END, START
from kmemexp.sim.tables import obj, tally
from kmemexp.workload import build, stream


def booted(config: dict) -> Machine:
    load = build.build(config["workload"], cpus=3, seed=7, replicas=[0])
    return boot(config, load.kinds, load.streams[0].slots)


@pytest.mark.parametrize("parts", DESIGNS)
def test_boot_carves_out_what_the_sizing_says(parts: tuple[str, str, str]) -> None:
    config = cell(*parts)
    arena = booted(config).world.arena
    sized = sizing.size(128 * MIB, 160 * MIB)
    for m, name in enumerate(maps.MAP_NAMES):
        vm_map.check(arena, m)
        want = getattr(sized, f"{name}_bytes", 0) if name != "kmem_map" or parts[0] == "split" else 0
        if name != "kernel_map":
            assert arena.node[m, END] - arena.node[m, START] == want
    parents = {maps.MB: maps.KMEM if parts[0] == "split" else maps.KERNEL, maps.BUFFER: maps.CLEAN}
    for child, parent in parents.items():
        (low, high), (start, end) = arena.node[parent, [START, END]], arena.node[child, [START, END]]
        assert low <= start < end <= high


@pytest.mark.parametrize("parts", DESIGNS)
def test_every_byte_of_the_maps_is_accounted_for(parts: tuple[str, str, str]) -> None:
    config = cell(*parts)
    load = build.build(LOAD, cpus=3, seed=7, replicas=[0])
    machine = boot(config, load.kinds, load.streams[0].slots)
    arena = machine.world.arena
    used = [vm_map.used(arena, m) for m in range(len(maps.MAP_NAMES))]
    grown = vm_map.census(arena)["zone_pages"] if parts[2] == "reservation" else 0
    replayed.play(machine, load.streams[0], model.Sampling(5, 1, 8), 0)
    counters = machine.world.counters
    after = sum(vm_map.used(arena, m) for m in range(len(maps.MAP_NAMES))) - sum(used)
    entry_pages = vm_map.census(arena)["zone_pages"] - grown if parts[2] == "reservation" else 0
    wired_in_place = 0
    if parts[1] == "buckets":  # an interrupt zone grows in KVA that boot set aside
        wired_in_place = int(machine.world.state_b.zone[machine.world.state_b.zone[:, 5] >= 0, 7].sum()) * 4096
    assert after == counters[tally.HELD] + counters[tally.DIRECT] + entry_pages * 4096 - wired_in_place
    assert counters[tally.HELD] >= counters[tally.GRANTED] >= counters[tally.REQUESTED]
    for m in range(len(maps.MAP_NAMES)):
        vm_map.check(arena, m)


@pytest.mark.parametrize("kva_bytes", [160 * MIB, 161 * MIB, 160 * MIB + 4096])
def test_free_superpages_are_those_whose_pages_are_all_free(kva_bytes: int) -> None:
    config = cell(*DESIGNS[0])
    config["machine"] |= {"kva_bytes": kva_bytes}
    machine = booted(config)
    ops = build.build(LOAD, cpus=3, seed=7, replicas=[0]).streams[0]
    pages = machine.superpage_bytes // 4096
    for end in np.linspace(0, ops.length, 5).astype(int):
        machine.replay(machine.world, *stream.columns(ops), machine.world.counters[tally.OPS], end)
        want = 0
        for m, nbytes, shared in zip(machine.maps, machine.map_bytes, machine.shared, strict=True):
            shown = surveying.picture(machine, m, nbytes // 4096)
            whole = [shown[i : i + pages].max() == 0 for i in range(0, len(shown) - pages + 1, pages)]
            want += sum(whole) if shared else 0
        assert surveying.free_superpages(machine) == want > 0


@pytest.mark.parametrize("parts", DESIGNS)
def test_live_chunks_are_disjoint_and_those_of_one_kind_are_what_was_asked_for(parts: tuple[str, str, str]) -> None:
    config = cell(*parts)
    load = build.build(LOAD, cpus=3, seed=7, replicas=[0])
    machine = boot(config, load.kinds, load.streams[0].slots)
    ops = load.streams[0]
    for end in np.linspace(0, ops.length, 6).astype(int)[1:]:
        machine.replay(machine.world, *stream.columns(ops), machine.world.counters[tally.OPS], end)
        live = machine.world.objects[machine.world.objects[:, obj.ADDR] >= 0]
        order = live[np.argsort(live[:, obj.ADDR])]
        reach = order[:, obj.ADDR] + order[:, obj.SIZE]
        assert (reach[:-1] <= order[1:, obj.ADDR]).all()


def test_a_lane_does_not_depend_on_its_batch_and_a_seed_changes_it() -> None:
    config = cell(*DESIGNS[2])
    alone = simulate_lanes(config, [3])[0]
    among = simulate_lanes(config, [1, 3, 0])[1]
    assert alone.replica == among.replica == 3
    np.testing.assert_array_equal(alone.metrics, among.metrics)
    np.testing.assert_array_equal(alone.series, among.series)
    assert (simulate_lanes(config | {"seed": 8}, [3])[0].metrics != alone.metrics).any()


def test_every_design_sees_the_same_requests() -> None:
    lanes = [simulate_lanes(cell(*parts), [0])[0] for parts in DESIGNS]
    for name in ("requested_total_bytes", "operations_count"):
        assert len({result.metrics[INDEX[name]] for result in lanes}) == 1


def test_with_addresses_of_64_bits_malloc_gets_no_more_than_ram() -> None:
    config = cell("unified", "slab", "reservation", kva_mib=1021)
    (scarce,) = simulate_lanes(config, [0])
    (roomy,) = simulate_lanes(config | {"machine": config["machine"] | {"arch": "amd64"}}, [0])
    np.testing.assert_array_equal(
        scarce.series[:, SERIES.index("held_bytes")], roomy.series[:, SERIES.index("held_bytes")]
    )
    left = 128 * MIB - roomy.series[:, SERIES.index("held_bytes")].max()
    fits, kva = INDEX["malloc_fits_1m_min_bytes"], INDEX["kva_fits_1m_min_bytes"]
    assert roomy.metrics[fits] == left < scarce.metrics[fits]
    assert roomy.metrics[kva] == scarce.metrics[kva] == scarce.metrics[fits]


def test_metrics_agree_with_the_series() -> None:
    result = simulate_lanes(cell(*DESIGNS[0]), [0])[0]
    value = dict(zip(NAMES, result.metrics.tolist(), strict=True))
    series = dict(zip(SERIES, result.series.T, strict=True))
    assert np.isfinite(result.metrics[: -len(SPACE + STALE + TIMED)]).all()
    assert value["held_end_bytes"] == series["held_bytes"][-1]
    assert value["held_peak_bytes"] >= series["held_bytes"].max()
    assert value["map_free_bytes"] == series["map_free_bytes"][-1]
    assert value["malloc_headroom_min_bytes"] == series["malloc_free_bytes"].min()
    assert 0 < value["internal_frag_ratio"] < value["total_frag_mean_ratio"] < 1
    assert value["kmem_map_free_min_bytes"] == value["malloc_headroom_min_bytes"]
    assert value["kmem_map_largest_run_min_bytes"] == value["malloc_largest_run_min_bytes"]
    assert value["malloc_headroom_min_bytes"] >= value["malloc_fits_16k_min_bytes"] >= value["malloc_fits_4m_min_bytes"]
    assert value["kva_fits_1m_min_bytes"] <= value["kernel_map_free_min_bytes"]
    shares = series["malloc_largest_run_bytes"] / series["malloc_free_bytes"]
    assert value["malloc_external_frag_mean_ratio"] == pytest.approx(1 - shares.mean())
    assert value["malloc_external_frag_mean_ratio"] == value["kmem_map_external_frag_mean_ratio"]
    assert 0 <= value["malloc_unusable_1m_mean_ratio"] <= value["malloc_external_frag_mean_ratio"] + 1e-12
    assert 0 <= value["kva_unusable_1m_mean_ratio"] <= value["kernel_map_external_frag_mean_ratio"] + 1e-12
    assert np.isnan([value["direct_map_free_min_bytes"], value["block_steals_count"]]).all()
    whole = [name for _, name, _ in result.snapshots if ":" not in name]
    assert set(whole) == {"kernel_map", "kmem_map", "mb_map", "exec_map"}
    assert len(whole) == 3 * 4


def test_a_kmem_map_that_is_too_small_panics_by_its_historic_name_while_the_unified_map_goes_on() -> None:
    split = simulate_lanes(cell(*DESIGNS[0]) | {"workload": _burst()}, [0])[0]
    unified = simulate_lanes(cell(*DESIGNS[1]) | {"workload": _burst()}, [0])[0]
    assert split.panic == "kmem_map too small"
    assert split.metrics[INDEX["panics_count"]] > 0
    assert split.metrics[INDEX["failed_exhausted_count"]] > 0
    assert unified.panic == ""
    assert unified.metrics[INDEX["alloc_failures_count"]] == 0


def test_a_kva_without_room_for_its_submaps_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"kernel_map has no room for \w+"):
        booted(cell(*DESIGNS[0], kva_mib=96))


def test_unknown_parts_and_parameters_are_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"'bucket'.*buckets, "):
        simulate_lanes(cell(*DESIGNS[0]) | {"objects": OBJECTS["buckets"] | {"malloc": "bucket"}}, [0])
    with pytest.raises(ConfigError, match=r"dfly_slab has no parameter 'slid'.*slide"):
        simulate_lanes(cell(*DESIGNS[2], dfly_slab={"slid": 3}), [0])
    with pytest.raises(ConfigError, match=r"objects\.params\.dfly_slab: zone_bytes"):
        simulate_lanes(cell(*DESIGNS[2], dfly_slab={"zone_bytes": 100}), [0])


def test_parameters_of_an_allocator_reach_it() -> None:
    small = simulate_lanes(cell(*DESIGNS[2], dfly_slab={"zone_bytes": 32768}), [0])[0]
    large = simulate_lanes(cell(*DESIGNS[2], dfly_slab={"zone_bytes": 131072}), [0])[0]
    assert small.metrics[INDEX["held_peak_bytes"]] < large.metrics[INDEX["held_peak_bytes"]]


def _burst() -> dict:
    """48 MiB of malloc in kernels whose kmem_map has 42.7 MiB."""
    kinds = {"block": KINDS["small"] | {"size": {"law": "fixed", "bytes": 32768}, "rate_hz": 150.0,
                                        "lifetime": {"law": "permanent"}}}  # fmt: skip
    return json.loads(json.dumps(LOAD)) | {"kinds": kinds}


@pytest.mark.parametrize(("reclaims", "failures"), [(True, 0), (False, 1)])
def test_a_map_without_room_makes_allocators_give_back_what_they_can_spare(reclaims: bool, failures: int) -> None:
    config = cell("unified", "buckets", "kmapentzone", kva_mib=64)
    config["maps"] |= {"submaps": [], "reserves": [], "reclaim": reclaims}
    names = dict.fromkeys(("malloc", "zone", "mbuf"), "uma_today")
    config["objects"] = {**names, "kinds": {}, "params": {"uma_today": {"reap": 2}}}
    n = 8000
    op = np.repeat(np.array([0, 1, 0], np.uint8), [n, n, 1])
    size = np.repeat(np.array([4096, 0, 40 << 20], np.int32), [n, n, 1])
    slot = np.append(np.tile(np.arange(n), 2), 0).astype(np.int32)
    zeros = np.zeros(len(op), np.int16)
    ops = stream.Stream(np.arange(len(op)), op, zeros, slot, size, zeros, zeros.astype(np.uint8), slots=n)
    kinds = stream.Kinds(("it",), *(np.zeros(1, np.int32) for _ in range(4)))
    machine = boot(config, kinds, n)
    played = replayed.play(machine, ops, model.Sampling(points=2, snapshots=0, bins=1), 0)
    assert played.metrics[INDEX["alloc_failures_count"]] == failures
    refused = played.metrics[INDEX["failed_fragmented_count"]] + played.metrics[INDEX["failed_exhausted_count"]]
    assert refused == failures


@pytest.mark.parametrize("parts", DESIGNS[:1])
def test_an_operation_that_takes_too_many_steps_ends_the_lane(parts: tuple[str, str, str]) -> None:
    config = cell(*parts)
    bounded = config | {"limits": {"steps_per_operation": 50}}
    (plain,), (same,) = simulate_lanes(config, [0]), simulate_lanes(bounded, [0])
    assert np.array_equal(plain.metrics, same.metrics, equal_nan=True)
    assert np.array_equal(plain.series, same.series)
    with pytest.raises(runaway.RunawayError, match=r"operation \d+ .* limits.steps_per_operation=1 steps"):
        simulate_lanes(config | {"limits": {"steps_per_operation": 1}}, [0])


def test_pictures_say_who_uses_a_map_and_add_up_to_what_live_objects_take() -> None:
    first, second = simulate_lanes(cell(*DESIGNS[0]), [0, 1])
    assert not any(":" in name for _, name, _ in second.snapshots)
    shots = {(time, name): shares.astype(int) for time, name, shares in first.snapshots}
    users = {name for _, name in shots if ":" in name}
    assert users >= {"kmem_map:malloc", "kernel_map:zone", "mb_map:mbuf", "kernel_map:mapped", "kernel_map:wired"}
    assert {name for name in users if name.startswith("mb_map:")} == {"mb_map:mbuf"}
    for (time, name), filled in shots.items():
        if ":" not in name:
            taken = [shares for (when, user), shares in shots.items() if when == time and user.startswith(f"{name}:")]
            assert (sum(taken) <= filled + 3).all(), name  # each rounded to 1/255


@pytest.mark.parametrize("ram_bytes", [4096, 1 << 20, 1 << 40])
def test_what_fits_is_no_more_than_the_ram_that_is_not_held_and_never_less_than_nothing(ram_bytes: int) -> None:
    """Without a clock memory is not limited, so allocators can hold more than there is."""
    config = cell(*DESIGNS[0])
    load = build.build(LOAD, cpus=3, seed=7, replicas=[0])
    machine = boot(config, load.kinds, load.streams[0].slots)._replace(backed_bytes=ram_bytes)
    lane = replayed.play(machine, load.streams[0], model.Sampling(points=4, snapshots=0, bins=1), 1)
    held = max(lane.series[:, SERIES.index("held_bytes")])
    fits = lane.metrics[INDEX["malloc_fits_16k_min_bytes"]]
    assert 0 <= fits <= max(ram_bytes - held, 0)
    assert (fits > 0) == (ram_bytes == 1 << 40)
    assert held > 1 << 20


def test_a_range_is_spread_over_the_stretches_that_it_covers() -> None:
    user, maps = np.array([0, 1, 2]), np.array([[0, 96], [100, 16]])
    objects = np.zeros((6, obj.COLUMNS), np.int64)
    objects[:, obj.ADDR], objects[:, obj.GRANTED] = (101, 112, 102, 104, -1, 114), (2, 4, 11, 12, 8, 8)
    objects[:, obj.KIND] = 0, 0, 1, 2, 0, 0  # the last but one is not live, the last reaches beyond the map
    elsewhere, spread = users.shares(objects, user, maps, 4)
    assert spread[:3].tolist() == [[0.5, 0, 0, 1], [0.5, 1, 1, 0.25], [0, 1, 1, 1]]
    assert spread[3:].sum() == elsewhere.sum() == 0


@pytest.mark.parametrize("parts", DESIGNS)
def test_caches_add_up_to_what_the_allocators_hold_and_have_handed_out(parts: tuple[str, str, str]) -> None:
    lane = simulate_lanes(cell(*parts), [0])[0]
    series = dict(zip(SERIES, lane.series.T, strict=True))
    held = dict(zip(series["time_ns"].tolist(), lane.series.tolist(), strict=True))
    by = {}
    for time_ns, moment, *row in lane.caches:
        by.setdefault((moment, time_ns), []).append(row)
    assert sorted(moment for moment, _ in by) == ["peak", "snapshot", "snapshot", "snapshot"]
    for (moment, time_ns), rows in by.items():
        said = dict(zip(SERIES, held[time_ns], strict=True))
        asked, granted, pages = (sum(row[k] for row in rows) for k in (-2, -1, -3))
        assert (asked, granted, pages * 4096) == tuple(
            said[name] for name in ("requested_bytes", "granted_bytes", "held_bytes")
        )
        for allocator, cache, size, objects, _slabs, pages, asked, granted in rows:
            assert pages * 4096 >= granted >= asked >= 0, (allocator, cache)
            assert size == 0 or granted == size * objects, (allocator, cache)
        if moment == "peak":
            assert said["held_bytes"] >= series["held_bytes"].max() / caches.NOTICED
    assert simulate_lanes(cell(*parts), [1])[0].caches == ()


def foreseen(**given: int) -> dict:
    """A cell whose arena places by what is to come."""
    config = cell("unified", "buckets", "kmapentzone")
    params = {"foreseen": given}
    return config | {"maps": config["maps"] | {"arena": "foreseen", "entries": "own", "params": params}}


@pytest.mark.parametrize("plan", [0, 1])
def test_a_lane_that_knows_the_future_asks_for_what_others_ask_for(plan: int) -> None:
    (knows,), (guesses,) = (simulate_lanes(c, [0]) for c in (foreseen(plan=plan), cell(*DESIGNS[1])))
    same = ("operations_count", "alloc_failures_count", "held_peak_bytes", "map_operations_count")
    assert [knows.metrics[INDEX[name]] for name in same] == [guesses.metrics[INDEX[name]] for name in same]
    kept = INDEX["map_superpages_mean_count"]
    assert guesses.metrics[kept] <= knows.metrics[kept] <= knows.metrics[INDEX["map_superpages_bound_mean_count"]]


def test_a_lane_that_is_not_what_its_rehearsal_was_fails() -> None:
    with pytest.raises(ConfigError, match=r"maps\.params\.foreseen: requests=20: the rehearsal has more"):
        simulate_lanes(foreseen(requests=20), [0])


def test_a_malloc_type_at_its_limit_refuses_and_kinds_of_no_one_type_are_not_held() -> None:
    """Roles name types; those of the load here may wait, and without a clock go without, counted as waits."""
    names = ("object_waits_count", "alloc_failures_count")
    typed = {"roles": {"name": "own", "recorded": {}, "synthetic": {"small": {"type": "M_TEMP"}}}}
    found = []
    for limit, more in ((0, typed), (50_000, typed), (50_000, {})):
        config = cell(*DESIGNS[0], buckets={"malloc_type_bytes": limit}) | more
        (lane,) = simulate_lanes(config, [0])
        found.append([lane.metrics[INDEX[name]] for name in names])
    assert found[0] == found[2] == [0, 0]
    assert found[1][0] > 100
    assert found[1][1] == 0
