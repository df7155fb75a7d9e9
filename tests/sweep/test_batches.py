"""How lanes are put into batches."""

import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_fakes import SIMULATE, make_cells

from kmemexp.planning.texts import Pieces, Texts
from kmemexp.sweep import batches
from kmemexp.sweep.batches import Batch, halves


def make_batches(*given, **more) -> list[Batch]:
    return list(batches.make_batches(*given, **more))


def lanes(batch: Batch) -> list[tuple[str, int]]:
    return [(cell.cell_key, replica) for cell in batch.cells for replica in cell.replicas]


@settings(max_examples=60)
@given(
    count=st.integers(1, 12),
    streams=st.integers(1, 5),
    replicas=st.integers(1, 5),
    cpus=st.integers(1, 8),
    est_ops=st.sampled_from([0, 1, 100_000, 3_000_000, 80_000_000]),
    data=st.data(),
)
def test_every_missing_lane_is_in_one_batch(
    count: int, streams: int, replicas: int, cpus: int, est_ops: int, data: st.DataObject
) -> None:
    cells = make_cells([{}] * count, streams, est_ops)
    every = [(key, r) for key in cells.cell_key for r in range(replicas)]
    done = set(data.draw(st.lists(st.sampled_from(every))))
    made = make_batches(cells, range(replicas), done, cpus=cpus, simulate=SIMULATE)
    assert sorted(lane for batch in made for lane in lanes(batch)) == sorted(set(every) - done)
    assert all(batch.cells and batch.lanes == len(lanes(batch)) for batch in made)
    assert len({batch.id for batch in made}) == len(made)
    assert made == make_batches(cells, range(replicas), done, cpus=cpus, simulate=SIMULATE)
    assert sum(batch.est_ops for batch in made) == est_ops * len(set(every) - done)


def test_batches_are_about_as_long_as_asked() -> None:
    cells = make_cells([{}] * 30, streams=3, est_ops=1_000_000)
    made = make_batches(cells, range(20), (), cpus=2, target_seconds=3.0, rate_ops=5e6, simulate=SIMULATE)
    assert all(7e6 <= batch.est_ops <= 19e6 for batch in made[:-1])


def test_a_small_sweep_still_gives_every_cpu_several_batches() -> None:
    cells = make_cells([{}] * 8, streams=2, est_ops=2_000_000)
    assert len(make_batches(cells, range(4), (), cpus=2, simulate=SIMULATE)) >= 8
    assert len(make_batches(cells, range(4), (), cpus=1, simulate=SIMULATE)) >= 4


def test_tiny_cells_share_batches() -> None:
    assert len(make_batches(make_cells([{}] * 300, est_ops=10), range(5), (), cpus=2, simulate=SIMULATE)) == 1


def test_lanes_of_one_stream_stay_together() -> None:
    cells = make_cells([{}] * 12, streams=4, est_ops=4_000_000)
    of_key = dict(zip(cells.cell_key, cells.stream_key, strict=True))
    made = make_batches(cells, range(3), (), cpus=1, target_seconds=2.0, rate_ops=5e6, simulate=SIMULATE)
    homes: dict[tuple[str, int], set[str]] = {}
    for batch in made:
        for key, replica in lanes(batch):
            homes.setdefault((of_key[key], replica), set()).add(batch.id)
    assert all(len(ids) == 1 for ids in homes.values())


def test_a_stream_of_very_much_work_is_cut_evenly() -> None:
    cells = make_cells([{}] * 12, streams=12, est_ops=20_000_000)
    made = make_batches(cells, [0], (), cpus=4, target_seconds=8.0, rate_ops=5e6, simulate=SIMULATE)
    work = [batch.est_ops for batch in made]
    assert len(made) >= 6
    assert max(work) <= 2 * min(work)


def test_an_operation_with_a_clock_is_more_work() -> None:
    cells = make_cells([{}] * 40, streams=1, est_ops=1_000_000)
    sizes = {"target_seconds": 1.0, "rate_ops": 4e6, "simulate": SIMULATE}
    plain = make_batches(cells, [0], (), **sizes)
    timed = make_batches(cells.assign(timed=True), [0], (), **sizes)
    assert len(plain) == 8  # a batch may hold a quarter more than the target
    assert len(timed) == 40


def test_numbers_are_plain_python() -> None:
    (batch,) = make_batches(make_cells([{}]), range(1), (), simulate=SIMULATE)
    assert all(type(value) in {str, int, bool, tuple, Pieces} for value in batch.cells[0])


def test_nothing_missing_gives_no_batch() -> None:
    cells = make_cells([{}] * 2)
    assert (
        make_batches(cells, range(2), {(key, r) for key in cells.cell_key for r in range(2)}, simulate=SIMULATE) == []
    )


def test_halving_ends_at_single_lanes() -> None:
    (batch,) = make_batches(make_cells([{}] * 5, est_ops=10), range(3), (), simulate=SIMULATE)
    todo, single = [batch], []
    while todo:
        batch = todo.pop()
        if batch.lanes == 1:
            single.append(batch)
        else:
            first, second = halves(batch)
            assert first.id != second.id
            assert lanes(first) + lanes(second) == lanes(batch)
            todo += [second, first]
    assert len({b.id for b in single}) == 15
    assert all(a.cells[0].replicas != b.cells[0].replicas or a.cells != b.cells for a, b in pairwise(single))


def test_the_id_depends_on_the_rows_alone() -> None:
    one, two = (make_batches(make_cells([{}] * 2, est_ops=ops), range(2), (), simulate=SIMULATE) for ops in (10, 20))
    assert [b.id for b in one] == [b.id for b in two]
    assert len(one[0].id) == 20


@pytest.mark.parametrize("replicas", [range(3), [2, 4], (0,)])
def test_replicas_are_those_asked_for(replicas) -> None:
    (batch,) = make_batches(make_cells([{}], est_ops=1), replicas, (), simulate=SIMULATE)
    assert batch.cells[0].replicas == tuple(replicas)


def test_configurations_are_put_together_from_the_pieces_that_cells_share() -> None:
    numbers = np.array([0, 1, 0])
    one = Texts({"design": (['{"name":"a"}', '{"name":"b"}'], numbers), "seed": (["7", "8", "9"], np.arange(3))})
    two = Texts({"design": (['{"name":"b"}'], np.array([0])), "seed": (["7"], np.array([0]))})
    joined = Texts.joined([one, two])
    assert list(joined) == [*one, *two] == [joined.pieces(i).text for i in range(4)]
    assert list(joined.chosen([3, 0])) == [joined[3], joined[0]]
    known: dict = {}
    decoded = [joined.pieces(i).decoded(known) for i in range(4)]
    assert decoded == list(map(json.loads, joined))
    assert decoded[1]["design"] is decoded[3]["design"]
    assert [joined.pieces(i).value("seed") for i in range(4)] == [7, 8, 9, 7]
    assert len({id(joined.pieces(i).texts[0]) for i in (1, 3)}) == 1
    whole = Pieces((), (one[1],))
    assert (whole.text, whole.decoded({}), whole.value("seed"), whole.value("none")) == (one[1], decoded[1], 8, None)


def test_the_same_batches_come_of_configurations_in_pieces() -> None:
    cells = make_cells([{}] * 9, est_ops=9_000_000)
    long = json.dumps({"what": "x" * 2000})
    numbers = np.arange(9)
    texts = Texts({"cost": ([long], numbers * 0), "seed": (list(map(str, numbers)), numbers)})
    columns = {name: cells[name].tolist() for name in cells} | {"config": texts}
    given = {"replicas": range(3), "done": {(cells.cell_key[0], 1)}, "simulate": SIMULATE}
    in_pieces, whole = make_batches(columns, **given), make_batches(columns | {"config": list(texts)}, **given)
    assert [batch.id for batch in in_pieces] == [batch.id for batch in whole]
    assert [c.config.text for b in in_pieces for c in b.cells] == [c.config.text for b in whole for c in b.cells]
    assert len(pickle.dumps(in_pieces)) < 0.5 * len(pickle.dumps(whole))
