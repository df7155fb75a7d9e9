"""States by pointer: `Ref(T)` is the address of a NamedTuple T, and its attributes are read where they lie.

By value, a State of forty arrays is three hundred machine words, which every call that is not inlined copies. A kernel
is therefore compiled for references only, whoever calls it: `by_pointer` maps the types of its arguments, and a tuple
is converted where it is passed on. A driver converts what it passes in a loop once, before the loop, by `ref`.
"""

import hashlib
from typing import Any, TypeVar

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import impl_ret_borrowed
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import lower_builtin, lower_cast, lower_getattr_generic, register_model

from kmemexp.jit.arrays import plain

T = TypeVar("T")


def ref(state: T) -> T:
    """Take the address of a NamedTuple, in compiled code; without compilation return what is given.

    The reference is good as long as the function that takes it runs.
    """
    return state


def by_pointer(given: types.Type) -> types.Type:
    """Type for which a kernel is compiled that is given this type."""
    return Ref(given) if isinstance(given, types.BaseNamedTuple) else plain(types.unliteral(given))


class Ref(types.Type):
    """Address of a NamedTuple."""

    def __init__(self, target: types.BaseNamedTuple) -> None:
        self.target = target
        super().__init__(f"Ref({target.name})")

    def __hash__(self) -> int:
        """Hash that is found once: a dispatcher asks at each call, and a State's is made of those of all its fields."""
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = self._hash = hash(self.target)
        return found

    __eq__ = types.Type.__eq__

    def __getstate__(self) -> dict[str, Any]:
        """All but the hash: it is of this process only."""
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    @property
    def key(self) -> Any:
        """Equal for references to the same type: names of types do not say their modules."""
        return self.target

    @property
    def mangling_args(self) -> tuple[str, tuple[Any, ...]]:
        """A short name for linking: the fields of a State spelled out make kilobytes, which every call would repeat."""
        of = self.target.instance_class
        spelled = f"{of.__module__}.{of.__qualname__}: {self.target.name}"
        return f"{of.__name__}_{hashlib.sha256(spelled.encode()).hexdigest()[:16]}", ()

    def can_convert_from(self, _context: Any, other: types.Type) -> Any:
        """Accept the tuple itself."""
        return Conversion.safe if other == self.target else None


@register_model(Ref)
class _Model(models.PrimitiveModel):
    """A pointer without a type, which Numba can store."""

    def __init__(self, manager: Any, of: Ref) -> None:
        super().__init__(manager, of, cgutils.voidptr_t)


@infer_global(ref)
class _Taking(AbstractTemplate):
    """Type of `ref(x)`."""

    def generic(self, args: tuple[types.Type, ...], _kws: Any) -> Any:
        return signature(by_pointer(args[0]), args[0])


@infer_getattr
class _Attribute(AttributeTemplate):
    """Type of an attribute: a NamedTuple within a NamedTuple is taken by reference too."""

    key = Ref

    def generic_resolve(self, of: Ref, attr: str) -> types.Type | None:
        fields = of.target.fields
        return by_pointer(of.target[fields.index(attr)]) if attr in fields else None


@lower_builtin(ref, types.BaseNamedTuple)
def _take(_context: Any, builder: Any, _sig: Any, args: tuple[Any, ...]) -> Any:
    return _address(builder, args[0])


@lower_builtin(ref, Ref)
def _keep(_context: Any, _builder: Any, _sig: Any, args: tuple[Any, ...]) -> Any:
    return args[0]


@lower_cast(types.BaseNamedTuple, Ref)
def _convert(_context: Any, builder: Any, _from: Any, _to: Any, value: Any) -> Any:
    return _address(builder, value)


def _address(builder: Any, value: Any) -> Any:
    """Put a tuple on the stack. The optimiser is told that the address may be any: what is read there is invariant."""
    place = builder.bitcast(cgutils.alloca_once_value(builder, value), cgutils.voidptr_t)
    veil = ir.FunctionType(cgutils.voidptr_t, [cgutils.voidptr_t])
    return builder.asm(veil, "", "=r,0,~{memory}", [place], True)


@lower_getattr_generic(Ref)
def _read(context: Any, builder: Any, of: Ref, pointer: Any, attr: str) -> Any:
    kind = of.target[of.target.fields.index(attr)]
    place = field(context, builder, of, pointer, attr)
    if isinstance(kind, types.BaseNamedTuple):
        return builder.bitcast(place, cgutils.voidptr_t)
    return impl_ret_borrowed(context, builder, kind, load(builder, place))


def field(context: Any, builder: Any, of: Ref, pointer: Any, attr: str) -> Any:
    """Address of an attribute."""
    struct = context.get_value_type(of.target)
    return within(builder, builder.bitcast(pointer, struct.as_pointer()), of.target.fields.index(attr))


def within(builder: Any, place: Any, *path: int) -> Any:
    """Address of a member, or of a member's member."""
    return builder.gep(place, [cgutils.int32_t(i) for i in (0, *path)], inbounds=True)


def load(builder: Any, place: Any) -> Any:
    """Load what lies at a place, member by member: descriptors of arrays never change while a driver runs."""
    what = place.type.pointee
    if isinstance(what, ir.BaseStructType | ir.ArrayType):
        value = ir.Constant(what, ir.Undefined)
        for i in range(len(what.elements) if isinstance(what, ir.BaseStructType) else what.count):
            value = builder.insert_value(value, load(builder, within(builder, place, i)), i)
        return value
    loaded = builder.load(place)
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded
