"""Arrays as kernels take them: an address and a shape.

Numba passes an array in seven words and more: who owns it, how many items it has, how long they are, how far apart. Of
an array whose rows follow each other all that follows from its shape. A kernel is therefore compiled for `Plain` arrays
(`plain` maps the types of its arguments): a value of one is Numba's descriptor, and only as an argument it is short. A
call that is not inlined passes its arguments in registers then; for those that are there is less LLVM to go through.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.typeconv import Conversion
from numba.extending import lower_cast, register_model


class Plain(types.Array):
    """An array of numbers whose rows follow each other, of which a kernel counts no references."""

    def __init__(self, dtype: types.Type, ndim: int) -> None:
        super().__init__(dtype, ndim, "C", name=f"Plain({dtype}, {ndim}d)")

    @property
    def mangling_args(self) -> tuple[str, tuple[Any, ...]]:
        """A short name for linking."""
        return f"{self.dtype}x{self.ndim}", ()

    def can_convert_from(self, _context: Any, other: types.Type) -> Any:
        """Accept Numba's type of the same array."""
        return Conversion.safe if plain(other) == self else None

    def can_convert_to(self, context: Any, other: types.Type) -> Any:
        """Be taken for Numba's type of the same array."""
        return Conversion.safe if plain(other) == self else super().can_convert_to(context, other)


def plain(given: types.Type) -> types.Type:
    """Type for which a kernel is compiled that is given an array of this type; another type is given back."""
    if type(given) is not types.Array or given.layout != "C" or not given.mutable or not given.aligned:
        return given
    is_number = isinstance(given.dtype, types.Integer | types.Float | types.Boolean)
    return Plain(given.dtype, given.ndim) if is_number and given.ndim > 0 else given


@register_model(Plain)
class _Model(models.ArrayModel):
    """Numba's descriptor, but as an argument."""

    def get_argument_type(self) -> Any:
        data, shape = self._models[self._fields.index("data")], self._models[self._fields.index("shape")]
        return data.get_argument_type(), shape.get_argument_type()

    def as_argument(self, builder: Any, value: Any) -> Any:
        words = dict(zip(self._fields, super().as_argument(builder, value), strict=True))
        return words["data"], words["shape"]

    def from_argument(self, builder: Any, value: Any) -> Any:
        data, shape = value
        null = {f: ir.Constant(m.get_argument_type(), None) for f, m in zip(self._fields, self._models, strict=True)
                if f in ("meminfo", "parent")}  # fmt: skip
        size = ir.Constant(shape[0].type, getattr(self.fe_type.dtype, "bitwidth", 8) // 8)
        strides: list[Any] = [size]
        for extent in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], extent))
        items = shape[0]
        for extent in shape[1:]:
            items = builder.mul(items, extent)
        words = null | {"nitems": items, "itemsize": size, "data": data, "shape": shape, "strides": tuple(strides)}
        return super().from_argument(builder, tuple(words[f] for f in self._fields))


@lower_cast(types.Array, Plain)
@lower_cast(Plain, types.Array)
def _as_is(_context: Any, _builder: Any, _from: Any, _to: Any, value: Any) -> Any:
    return value
