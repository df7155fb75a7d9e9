"""Options of config groups that have other names now, and those that are gone: their names said what was not so."""

from kmemexp.errors import ConfigError

RENAMED = {
    "design": {
        "dragonfly_nokmem": "dragonfly_2003aug25",
        "dragonfly_slab_v1": "dragonfly_2003aug27",
        "dragonfly_slab": "dragonfly_2003oct",
        "dragonfly_objcache": "dragonfly_2005",
    }
}
"""By group: old names by which the same kernel may still be called."""
GONE = {
    "design": {
        "freebsd_vmem": "no kernel was all of it, on a 32-bit machine; FreeBSD 15 on amd64 is design=freebsd15 (with "
        "machine=amd64_4g, say)",
        "dragonfly_percpu": "no DragonFly was so; the mail's proposal carried out is design=mail2003",
    }
}
"""By group: old names, and what to use instead."""


def current(group: str, option: str) -> str:
    """Today's name of an option. Raises ConfigError for one that is gone."""
    if why := GONE.get(group, {}).get(option):
        raise ConfigError(f"{group}={option}: {why}")
    return RENAMED.get(group, {}).get(option, option)


def in_override(text: str) -> str:
    """Write an override with today's name of the option that it chooses. Raises ConfigError for one that is gone."""
    key, equals, value = text.partition("=")
    return f"{key}={current(key, value)}" if equals and key in RENAMED else text


def hint(text: str) -> str:
    """What to add to Hydra's message about an option that it has not found."""
    for group, names in RENAMED.items():
        for old, new in names.items():
            if f"{group}/{old}'" in text:
                return f"\n{group}={old} is called {new} now"
    for group, reasons in GONE.items():
        for old, why in reasons.items():
            if f"{group}/{old}'" in text:
                return f"\n{group}={old}: {why}"
    return ""
