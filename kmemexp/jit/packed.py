"""States as compiled code reads them, put together by Python: what a driver or a twin is called with.

Numba unboxes a tuple argument in code that it compiles for each function: for a State of forty arrays that is more code
than most kernels. A NamedTuple of int64s, arrays and such NamedTuples is a row of 64-bit words in memory, so Python can
write it, and compiled code takes its address.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numba.core import cgutils
from numba.extending import NativeValue, unbox

from kmemexp.jit.refs import Ref

KEPT = 3  # tuples whose words are kept: a driver is called again and again with the same ones


class Packed:
    """A NamedTuple in memory. It keeps the tuple's arrays alive."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.words = np.array(list(_words(given)), np.int64)
        self.address = self.words.ctypes.data
        self._numba_type_ = _type(given)  # by this name a dispatcher finds it without asking Python


@unbox(Ref)
def _unbox(_of: Ref, packed: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(packed, "address")
    address = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    return NativeValue(c.builder.inttoptr(address, cgutils.voidptr_t))


def _words(value: Any) -> Iterator[int]:
    """Words of a value as Numba 0.68 lays it out (ArrayModel, TupleModel). TypeError for what has another size."""
    if isinstance(value, np.ndarray):
        yield from (
            0,
            0,
            value.size,
            value.itemsize,
            value.__array_interface__["data"][0],
            *value.shape,
            *value.strides,
        )
    elif isinstance(value, tuple):
        for field in value:
            yield from _words(field)
    elif isinstance(value, int | np.int64) and not isinstance(value, bool):
        yield int(value)
    else:
        raise TypeError(f"a state holds arrays, integers and states, not {type(value).__name__}")


def _type(given: Any) -> Ref:
    """Type of a NamedTuple's reference. Numba takes longer to find it than a kernel takes to run."""
    form = _form(given)
    if form not in _types:
        _types[form] = Ref(numba.typeof(given))
    return _types[form]


def _form(value: Any) -> Any:
    """What the type of a value depends on."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num
    return (type(value), *map(_form, value)) if isinstance(value, tuple) else type(value)


_types: dict[Any, Ref] = {}
_packed: dict[int, Packed] = {}


def pack(given: Any) -> Any:
    """Put a NamedTuple into memory; anything else is given back as it is."""
    if not hasattr(given, "_fields"):
        return given
    found = _packed.pop(id(given), None)
    if found is None or found.given is not given:
        found = Packed(given)
        while len(_packed) >= KEPT:
            del _packed[next(iter(_packed))]
    _packed[id(given)] = found
    return found


class Packing:
    """A compiled function that Python calls with tuples."""

    def __init__(self, compiled: Callable[..., Any]) -> None:
        self.compiled = compiled

    def __call__(self, *args: Any) -> Any:
        """Call it with their addresses."""
        return self.compiled(*[pack(a) if isinstance(a, tuple) else a for a in args])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.compiled, name)
