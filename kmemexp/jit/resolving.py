"""Numba finds the signature of an operator once for the same types, not once for each use: a fifth of compile time.

Both shortcuts give what Numba would find. Made for Numba 0.68; `tests/test_jit.py` says what is relied on.
"""

import functools
from typing import Any

from numba.core import targetconfig, types

_find = types.BaseFunction.get_call_type
_equal = targetconfig.TargetConfig.__eq__
_known: dict[tuple[int, Any], tuple[Any, Any]] = {}
"""By the identity of a function's type and the types of its arguments: the signature, and that type, kept alive."""


def _found_before(function: Any, context: Any, args: tuple[Any, ...], kws: Any) -> Any:
    """`BaseFunction.get_call_type`, which remembers what does not depend on the flags of the code around it.

    A template whose implementation is found by the function's own key is one of Numba's fixed tables; an overload is
    compiled, under flags, and found by itself.
    """
    known = None if kws else _known.get((id(function), args))
    if known:
        return known[0]
    signature = _find(function, context, args, kws)
    if not kws and signature is not None and function._impl_keys[signature.args] is function.typing_key:
        _known[id(function), args] = signature, function
    return signature


def _equal_flags(flags: Any, other: Any) -> Any:
    """`TargetConfig.__eq__`, which first looks at what has been set."""
    return (type(flags) is type(other) and flags._values == other._values) or _equal(flags, other)


@functools.cache
def _hash_of_class(flags: Any) -> int:
    return hash(tuple(sorted(flags.options)))


def _hash_of_flags(flags: Any) -> int:
    """`TargetConfig.__hash__`, which is the same for all flags of a class."""
    kind: Any = type(flags)
    return _hash_of_class(kind)


PATCHES: tuple[tuple[Any, str, Any], ...] = (
    (types.BaseFunction, "get_call_type", _found_before),
    (targetconfig.TargetConfig, "__eq__", _equal_flags),
    (targetconfig.TargetConfig, "__hash__", _hash_of_flags),
)
"""What is replaced while code is compiled (`sparing.sparing`)."""
