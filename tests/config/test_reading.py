"""What is read once composes to what Hydra composes by itself, and a changed file is read again."""

import os
import re

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig
from omegaconf._utils import get_yaml_loader

from kmemexp.config import files, reading, schema

CONF = files.conf_dir()
COMPOSED = [
    [],
    ["design=linux_slub", "machine.cpus=3", "objects.params.slub.min_partial=3"],
    ["+sweep=fragmentation", "workload=pgbench", "cost=opteron2003"],
    ["+sweep=proactive", "policy=two_ended", "design=mail2003_bare"],
    ["+experiment=all"],
    ["scenario=pageout_circle", "seed=4", "stability=percpu", "stability.kind=tcpcb"],
]
WRONG = [
    ["design=nobody"],
    ["machine.cpus=many"],
    ["nothing=1"],
    ["+sweep=nobody"],
    ["~design", "maps.arena=${no}"],
]


@pytest.fixture
def loaders():
    """Ours and Hydra's, for the same folders; a further folder comes first."""
    schema.register()

    def make(*more):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            path = GlobalHydra.instance().config_loader().get_search_path()
            for folder in more:
                path.prepend("test", f"file://{folder}")
            return reading.KeepingLoader(path), ConfigLoaderImpl(path)

    return make


def composed(loader, overrides):
    """Every node with what OmegaConf knows of it, or the error."""
    try:
        found = loader.load_configuration("config", list(overrides), RunMode.RUN, from_shell=False)
    except Exception as error:
        return f"{type(error).__name__}: {error}: {error.__cause__}"
    return facts(found)


def facts(node, parent=None, path=""):
    known = vars(node._metadata) | {"flags_root": None, "resolver_cache": None}
    plain = not isinstance(node, DictConfig | ListConfig) or not isinstance(node._content, dict | list)
    said = type(node), {name: str(value) for name, value in known.items()}, node._get_parent() is parent
    out = {path: (*said, repr(node._value()) if plain else "")}
    if not plain:
        keys = node._content if isinstance(node, DictConfig) else range(len(node._content))
        for key in keys:
            out |= facts(node._content[key], node, f"{path}.{key}")
    return out


@pytest.mark.parametrize("overrides", [*COMPOSED, *WRONG], ids=" ".join)
def test_composes_as_hydra_does(loaders, overrides):
    mine, hydras = loaders()
    for _ in range(2):  # read, and kept
        assert composed(mine, overrides) == composed(hydras, overrides)


def test_one_composition_does_not_change_the_next(loaders):
    mine, hydras = loaders()
    found = mine.load_configuration("config", ["workload=pgbench"], RunMode.RUN)
    found.workload.trace = found.maps.arena = "changed"
    found.machine.cpus = 99
    found.sweep.metrics.clear()
    assert composed(mine, ["workload=pgbench"]) == composed(hydras, ["workload=pgbench"])


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_changed_file_is_read_again(loaders, tmp_path):
    mine, hydras = loaders(tmp_path)
    place = tmp_path / "machine" / "mine.yaml"
    for cpus in (3, 5, 7):
        write(place, f"cpus: {cpus}\nram_bytes: 128MiB\nkva_bytes: 256MiB\n")
        os.utime(place, ns=(cpus, cpus))
        assert mine.load_configuration("config", ["machine=mine"], RunMode.RUN).machine.cpus == cpus
    write(place, "defaults: [i386_64m]\ncpus: 9\n")
    assert composed(mine, ["machine=mine"]) == composed(hydras, ["machine=mine"])
    place.unlink()
    assert composed(mine, ["machine=mine"]) == composed(hydras, ["machine=mine"])


def test_a_file_that_hides_another_one_is_found(loaders, tmp_path):
    mine, _ = loaders(tmp_path)
    before = mine.load_configuration("config", ["machine=i386_64m"], RunMode.RUN).machine.cpus
    write(tmp_path / "machine" / "i386_64m.yaml", "cpus: 77\nram_bytes: 128MiB\nkva_bytes: 256MiB\n")
    assert before != 77
    assert mine.load_configuration("config", ["machine=i386_64m"], RunMode.RUN).machine.cpus == 77


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "plain", "# @package nowhere.else\ncpus: 3\n",
        "# @package _global_\nmachine: {cpus: 3}\n", "defaults: {a: b}\n", "defaults: [nobody]\n", "unknown: 1\n",
        "cpus: 1e1\nram_bytes: 1_000\nkva_bytes: 0x10\n", "cpus: 2020-01-01\n", "cpus: ${seed}\nram_bytes: ???\n",
        "defaults: ['/memory@memory: ${policy}']\n", "cpus: 012\nthreads: yes\n", "cpus: é\n",
    ],
)  # fmt: skip
def test_odd_files_are_read_as_hydra_reads_them(loaders, tmp_path, text):
    write(tmp_path / "machine" / "odd.yaml", text)
    mine, hydras = loaders(tmp_path)
    for _ in range(2):
        assert composed(mine, ["machine=odd"]) == composed(hydras, ["machine=odd"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpus: 1\ncpus: 2\n", "line 2, column 1: found duplicate key cpus"),
        ("cpus: [1", r"line \d, column \d+: (did not find )?expected"),
        ("ram_bytes: 1\n\tcpus: 1", r"line \d, column \d+: .*"),
        ("cpus: !!python/object/apply:os.getpid []", "line 1, column 7: could not determine a constructor for the tag"),
    ],
)
def test_a_file_that_is_no_yaml_is_named_with_the_line(loaders, tmp_path, text, said):
    write(tmp_path / "machine" / "odd.yaml", text)
    mine, _ = loaders(tmp_path)
    found = composed(mine, ["machine=odd"])
    assert re.search(f"{re.escape(str(tmp_path))}/machine/odd.yaml, {said}", found)


def test_a_defaults_list_may_refer_to_choices(loaders, tmp_path):
    write(tmp_path / "sweep" / "refers.yaml", "# @package _global_\ndefaults: [{/refers: '${sweep}_${nothing}'}]\n")
    write(tmp_path / "sweep" / "sees.yaml", "# @package _global_\ndefaults: [{/refers: '${sweep}'}]\n")
    write(tmp_path / "refers" / "sees.yaml", "# @package _global_\nseed: 12\n")
    mine, hydras = loaders(tmp_path)
    for name in ("sees", "refers"):
        assert composed(mine, [f"+sweep={name}"]) == composed(hydras, [f"+sweep={name}"])
    assert mine.load_configuration("config", ["+sweep=sees"], RunMode.RUN).seed == 12


def test_both_parsers_read_every_file_alike():
    for path in CONF.rglob("*.yaml"):
        text = path.read_text("utf-8")
        assert repr(yaml.load(text, Loader=reading._loader())) == repr(yaml.load(text, Loader=get_yaml_loader()))


def test_hydra_itself_is_left_as_it_was(loaders):
    mine, _ = loaders()
    mine.load_configuration("config", [], RunMode.RUN)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("config", ["seed=3"]).seed == 3
        assert type(GlobalHydra.instance().config_loader()) is ConfigLoaderImpl
    assert reading.defaults_list._create_interpolation_map.__module__ == "hydra._internal.defaults_list"
    assert reading.keeping(mine) is mine
