"""The law of lifetimes: the worked examples of its source, and what it must not do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.workload.lives import law, proofs

NS = 1_000_000_000


def seconds(*values):
    return np.array([round(v * NS) for v in values], np.int64)


def test_proven_deaths_are_put_no_later_than_the_lower_quartile():
    says = law.law(law.Site(seconds(0.1, 0.2, 0.4, 2), 0, seconds()))
    assert says.spans / NS == pytest.approx([0.1, 0.175, 0.175, 0.175])


def test_open_lives_die_by_a_systematic_draw_oldest_first():
    says = law.law(law.Site(seconds(0.1, 0.2, 0.4, 2), 0, seconds(10, 5, 0.15, 0.05)))
    assert says.chance == pytest.approx([0.8, 0.8, 0.2, 0])
    assert says.dies.tolist() == [True, True, False, False]
    assert says.after / NS == pytest.approx(0.175)


@pytest.mark.parametrize(("proven", "seen"), [(2, 0), (9, 82)])
def test_where_deaths_are_seen_open_lives_live_on(proven, seen):
    says = law.law(law.Site(seconds(*[0.1] * proven), seen, seconds(10, 5)))
    assert not says.dies.any()
    assert not says.chance.any()


@given(st.lists(st.floats(0, 1), max_size=50), st.floats(0, 1, exclude_max=True))
def test_a_draw_takes_as_many_as_the_chances_say(chances, start):
    taken = law.drawn(np.array(chances), start).sum()
    assert abs(taken - sum(chances)) <= 1 + 1e-6


def test_deaths_of_several_sites_are_found_apart():
    group = np.array([0, 1, 0, 0, 0, 0, 1])
    born = seconds(0, 0, 1, 2, 3, 4, 5)
    proof = np.where(np.arange(7) < 5, born + NS // 10, proofs.NEVER)
    seen = np.array([False, True, False, False, False, False, False])
    found = law.deaths(group, born, proof, seen, 100 * NS)
    assert found.life[found.chance == 1].tolist() == [0, 2, 3, 4]
    assert found.life[found.chance < 1].tolist() == [5]  # of site 1 nothing unseen is proven: its open life lives on
    assert found.dies.all()
    assert found.time_ns[found.chance < 1] == born[5] + NS // 10
