"""A wiring collects locks and sources by name; its settings are those of the configuration, by name and value."""

import pytest

from kmemexp.boot.sources import BOOT_KEYS, KEYS, PRIORITIES
from kmemexp.boot.wiring import Source, Wiring
from kmemexp.config.schema import Interrupts, Memory
from kmemexp.errors import ConfigError
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import glob


def test_the_big_lock_is_number_zero_and_classes_of_locks_follow_each_other() -> None:
    wiring = Wiring(cpus=3)
    assert wiring.locks[0].name == "big"
    assert [wiring.lock("zone", "spin", 3), wiring.lock("map", "sleep")] == [1, 4]
    assert wiring.lock("zone", "spin", 3) == 1, "the same name is the same lock"
    assert [lock.copies for lock in wiring.locks] == [1, 3, 1]


def test_a_text_that_is_no_lock_is_refused_when_it_is_added() -> None:
    wiring = Wiring()
    with pytest.raises(ConfigError, match="unknown word 'mutex'"):
        wiring.lock("zone", "mutex")
    assert len(wiring.locks) == 1


def test_sources_are_numbered_in_order() -> None:
    wiring = Wiring()
    assert wiring.source("net", "device", [{"work": 3}], rate_hz=10.0) == 0
    assert wiring.source("daemon", "task") == 1
    assert wiring.sources[0] == Source("net", "device", [{"work": 3}], rate_hz=10.0)


@pytest.mark.parametrize("name", ["model", "nested", "big_lock", "would_sleep", "on_deadlock", "depth", "queue"])
def test_a_setting_of_interrupts_keeps_its_name(name: str) -> None:
    assert name in Interrupts.__dataclass_fields__
    assert name in Wiring.__dataclass_fields__
    assert hasattr(glob, name.upper())


def test_settings_of_memory_keep_their_names() -> None:
    assert {"sleep_locked"} <= Memory.__dataclass_fields__.keys() & Wiring.__dataclass_fields__.keys()
    assert hasattr(glob, "SLEEP_LOCKED")
    assert hasattr(glob, "CLUSTER")


def test_keys_of_a_source_are_fields_of_it() -> None:
    assert {"klass" if key == "class" else key for key in KEYS} - set(BOOT_KEYS) == set(Source._fields) - {"name"}
    assert set(mc.MODES) <= PRIORITIES.keys()
