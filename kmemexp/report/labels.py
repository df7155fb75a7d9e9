"""Short labels of metrics for narrow tables, and the legend that says which metric each is and what it means."""

from collections.abc import Iterable

from kmemexp.metrics import INDEX, METRICS

UNITS = ("ratio", "bytes", "count", "ns", "hz")
SHORTER = {"external": "ext", "internal": "int", "operations": "ops", "fragmented": "frag", "interrupts": "irqs"}

SAME = ("the same", "that ", "those among")  # a text that begins so goes on from the one before


def short(metric: str) -> str:
    """Label of a metric: its words without the unit, which stands beside it: "map ext frag mean"; other names stay."""
    if metric not in INDEX:
        return metric
    words = metric.split("_")
    if len(words) > 1 and words[-1] in UNITS:
        words.pop()
    return " ".join(SHORTER.get(word, word) for word in words)


def legend(metrics: Iterable[str]) -> list[tuple[str, str, str]]:
    """Label, name and meaning of each metric, once; of what is no metric nothing."""
    return [(short(name), name, meaning(name)) for name in dict.fromkeys(metrics) if name in INDEX]


def meaning(metric: str) -> str:
    """What a metric means; "the same" of its text is written out."""
    at = INDEX[metric]
    text = METRICS[at].text
    if not text.startswith(SAME):
        return text
    before = next(m.text for m in reversed(METRICS[:at]) if not m.text.startswith(SAME))
    return f"{before}; here {text}"
