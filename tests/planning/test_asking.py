import pytest

from kmemexp.errors import ConfigError
from kmemexp.planning.asking import overrides


def test_settings_by_short_names():
    assert overrides("dragonfly_2003oct", {"workload": "pgbench", "cpus": 4}) == [
        "design=dragonfly_2003oct", "workload=pgbench", "machine.cpus=4",
    ]  # fmt: skip
    assert overrides((), {"sweep": "smoke", "replicas": 2, "kva_bytes": ["192MiB", "1GiB"]}) == [
        "+sweep=smoke", "sweep.reps.max=2", "machine.kva_bytes=192MiB,1GiB",
    ]  # fmt: skip
    assert overrides(["design=a,b"], {"interrupts__rate_hz": 1000, "copies": 2, "seed": 7, "nested": False}) == [
        "design=a,b", "interrupts.rate_hz=1000", "workload.copies=2", "seed=7", "interrupts.nested=false",
    ]  # fmt: skip
    assert overrides("", {"on_deadlock": None, "baseline": {"design": "a"}, "parts": [["x", "y"]]}) == [
        "interrupts.on_deadlock=null", "sweep.baseline={design:a}", "policy.parts=[x,y]",
    ]  # fmt: skip


def test_unknown_and_ambiguous_settings_are_refused():
    with pytest.raises(ConfigError, match=r"cpu: unknown setting.*did you mean cpus"):
        overrides("", {"cpu": 4})
    with pytest.raises(ConfigError, match=r"several keys of this name; write .*maps__params"):
        overrides("", {"params": {}})
