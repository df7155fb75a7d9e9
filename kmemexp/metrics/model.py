"""What a metric is."""

from typing import NamedTuple

RARE, SKEWED_LAW, PLAIN = "rare", "skewed", "plain"


class Margin(NamedTuple):
    """A difference up to which two designs are equivalent."""

    size: float
    kind: str = "absolute"  # in the metric's unit | "relative": of the baseline's mean | "share": of the replicas


class Metric(NamedTuple):
    """A column of the results."""

    name: str
    better: str  # "less", "more" or "" (neither)
    group: str
    text: str
    margin: Margin = Margin(0.0)
    law: str = PLAIN  # PLAIN: t intervals hold | SKEWED_LAW: they do not | RARE: often none in any replica
