"""What a pickled checkpoint is rebuilt into: descriptions of tensors, and stand-ins for the rest.

Names are those that `torch.save` writes; nothing that they stand for is imported or called.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lvdm_engines.errors import quoted

_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
# types without a storage class of their own, which lie in bytes; and how many they take
_BYTES = {
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip

_MOST_AXES = 64  # as many as torch has
_LARGEST = 2**63 - 1  # offsets and strides beyond it are no numbers for torch


def _refuse_state(_self: Any, _state: Any) -> None:
    """Stand in for `__setstate__`: the default lets a pickle rewrite even frozen objects."""
    raise pickle.UnpicklingError("refusing to change a finished object")


@dataclass(frozen=True)
class StorageRef:
    """A run of `numel` elements that the archive holds under `key`."""

    key: str
    dtype: str
    numel: int

    __setstate__ = _refuse_state


@dataclass(frozen=True)
class TensorRef:
    """A strided view into a storage; offset and strides count elements.

    `negative` and `conjugate` say that what is stored is still to be turned into what is meant.
    """

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    negative: bool = False
    conjugate: bool = False

    __setstate__ = _refuse_state

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or any(not 0 <= n <= _LARGEST for n in numbers):
            raise ValueError(
                f"impossible tensor of shape {quoted(self.shape)}, stride {quoted(self.stride)}"
            )
        reach = self.offset + sum(
            (n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)
        )
        if 0 not in self.shape and reach >= self.storage.numel:
            raise ValueError(f"tensor of shape {quoted(self.shape)} reaches past its storage")


class Inert:
    """Stands for any object that a pickle names and we do not build."""

    __slots__ = ()

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "Inert":
        """Accept any arguments, as unknown constructors may take any."""
        return super().__new__(cls)

    def __call__(self, *_args: Any, **_kwargs: Any) -> "Inert":
        """Accept being called, as unknown names may be functions."""
        return self

    def __setitem__(self, _key: Any, _value: Any) -> None:
        return

    def __setstate__(*_args: Any) -> None:
        # No `self`: a pickle may also send state to the class.
        return

    def append(self, *_args: Any) -> None:
        """Swallow an item."""

    def extend(self, *_args: Any) -> None:
        """Swallow items."""

    def add(self, *_args: Any) -> None:
        """Swallow an item."""


class _Known:
    """A name we do build; an object without a `__dict__`, so that no pickle can alter it."""

    __slots__ = ("_build",)
    _build: Callable[..., Any]

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "_build", build)

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)

    def __setattr__(self, name: str, _value: Any) -> None:
        raise pickle.UnpicklingError(f"refusing to set {quoted(name)}")

    __setstate__ = _refuse_state


@dataclass(frozen=True)
class StorageType:
    """A storage class of PyTorch, by the type of its elements."""

    dtype: str

    __setstate__ = _refuse_state


@dataclass(frozen=True)
class _ElementType:
    name: str

    __setstate__ = _refuse_state


class _Ordered(dict[Any, Any]):
    """A dictionary that drops the attributes which PyTorch hangs onto a state_dict."""

    __slots__ = ()

    def __setstate__(self, _state: Any) -> None:
        return


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    _grad: Any = None,
    _hooks: Any = None,
    pending: Any = None,
) -> Any:
    if isinstance(storage, Inert):  # of a type that no network has
        return storage
    if not isinstance(storage, StorageRef):
        raise pickle.UnpicklingError("a tensor without a storage")
    if len(shape) > _MOST_AXES or len(stride) > _MOST_AXES:
        raise pickle.UnpicklingError(f"a tensor of more than {_MOST_AXES} axes")
    if not all(type(n) is int for n in (offset, *shape, *stride)):  # True is one as well
        raise pickle.UnpicklingError("a tensor whose shape is not made of whole numbers")
    marks = pending if isinstance(pending, dict) else {}
    negative, conjugate = bool(marks.get("neg")), bool(marks.get("conj"))
    return TensorRef(storage, offset, tuple(shape), tuple(stride), negative, conjugate)


def _typed_tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    kind: Any,
    pending: Any = None,
) -> Any:
    """Describe a tensor of a type that lies in bytes; of an unknown one nothing is kept."""
    if not isinstance(storage, StorageRef) or not isinstance(kind, _ElementType):
        return Inert()
    typed = StorageRef(storage.key, kind.name, storage.numel // _BYTES[kind.name])
    return _tensor(typed, offset, shape, stride, None, None, pending)


def _of_type(build: Any, _type: Any, args: Any, _state: Any = None) -> Any:
    """Make what a tensor with attributes, or of a class of its own, is but for those."""
    if not isinstance(build, _Known) or not isinstance(args, tuple):
        return Inert()
    return build(*args)


def _ordered(items: Any = ()) -> _Ordered:
    """Make a dictionary of pairs, which move: copies of one list could fill the memory."""
    made = _Ordered(items)
    if items:
        items.clear()
    return made


def _parameter(data: Any, *_rest: Any) -> Any:
    return data


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._tensor", "_rebuild_from_type"): _of_type,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}


def stand_in(module: str, name: str) -> Any:
    """Return what is built for a global name of a pickle."""
    build = _BUILDERS.get((module, name))
    if build is not None:
        return _Known(build)
    if module in {"torch", "torch.storage"} and name in _DTYPES:
        return StorageType(_DTYPES[name])
    if module == "torch" and name in _BYTES:
        return _ElementType(name)
    return Inert
