"""`size=full`: the sweep file of the same name in conf/sweep/full/ instead of the one in conf/sweep/."""

from kmemexp.errors import ConfigError
from kmemexp.planning.axes import CommandLine, Options
from kmemexp.values import one_of

SIZES = ("default", "full")


def chosen(line: CommandLine, groups: Options) -> CommandLine:
    """Let the line name the sweeps of the size that it asks for. Raises ConfigError where there is none."""
    size = line.fixed.get("size", "").partition("=")[2] or SIZES[0]
    one_of("size", size, SIZES)
    if size == SIZES[0]:
        return line
    there = groups(f"sweep/{size}")
    if not line.sweeps:
        raise ConfigError(f"size={size}: is the size of a sweep; name one, such as +sweep={there[0]}")
    found = []
    for text in line.sweeps:
        key, _, name = text.partition("=")
        if name.rpartition("/")[2] not in there:
            raise ConfigError(f"size={size}: the sweep {name} has one size only; in two there are {', '.join(there)}")
        found.append(text if name.startswith(f"{size}/") else f"{key}={size}/{name}")
    return line._replace(sweeps=found)
