"""What must hold of a part's arrays, said by its own `check` or `census` (slow, for tests)."""


class InconsistentError(AssertionError):
    """Arrays of a part that contradict each other: a mistake in the part."""


def insist(holds: object, otherwise: str) -> None:
    """Raise InconsistentError with `otherwise` unless something holds, with and without `python -O`."""
    if not holds:
        raise InconsistentError(otherwise)
