"""Pickles of unknown origin, read without importing or calling anything that they name.

Builds plain containers and descriptions of tensors; every other name becomes an `Inert` object
that swallows whatever is done to it. Knows nothing of files and archives.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from lvdm_engines.errors import CheckpointError, quoted

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
}

# What broken or hostile pickle bytes make the standard unpickler raise.
_PICKLE_FAULTS = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError,
    MemoryError, OverflowError, RecursionError, TypeError, ValueError,
)  # fmt: skip
_HEAVIEST = 10_000  # parts of a tuple
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
    """A strided view into a storage; offset and strides count elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

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
class _StorageType:
    dtype: str

    __setstate__ = _refuse_state


class _Ordered(dict[Any, Any]):
    """A dictionary that drops the attributes which PyTorch hangs onto a state_dict."""

    __slots__ = ()

    def __setstate__(self, _state: Any) -> None:
        return


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any) -> Any:
    if not isinstance(storage, StorageRef):
        raise pickle.UnpicklingError("a tensor without a storage")
    if len(shape) > _MOST_AXES or len(stride) > _MOST_AXES:
        raise pickle.UnpicklingError(f"a tensor of more than {_MOST_AXES} axes")
    if not all(isinstance(n, int) for n in (offset, *shape, *stride)):
        raise pickle.UnpicklingError("a tensor whose shape is not made of whole numbers")
    return TensorRef(storage, offset, tuple(shape), tuple(stride))


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
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}


_Load = Callable[[Any], None]


def _weighed(load: _Load) -> _Load:
    """Follow the loading of a tuple with its weighing."""

    def load_and_weigh(self: Any) -> None:
        load(self)
        self.weigh(self.stack[-1])

    return load_and_weigh


def _refuse_number(_self: Any) -> None:
    raise pickle.UnpicklingError("a number of more than 255 bytes")


_STANDARD: Any = pickle._Unpickler.dispatch
_TUPLES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)


class _Reader(pickle._Unpickler):
    """The standard unpickler, the one in Python, with both of its doors to the outside closed.

    Bounded in time and stack as well: the hash of a few tuples of tuples may take either.
    """

    dispatch = (
        _STANDARD
        | {code[0]: _weighed(_STANDARD[code[0]]) for code in _TUPLES}
        | {pickle.LONG4[0]: _refuse_number}
    )
    stack: list[Any]
    storages: dict[str, StorageRef]

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self._weights: dict[int, int] = {}
        self._weighed: list[tuple[Any, ...]] = []  # alive, so that no other has their id

    def weigh(self, made: tuple[Any, ...]) -> None:
        """Refuse a tuple that holds too much, what its tuples hold included."""
        weight = len(made) + 1
        weight += sum(self._weights.get(id(part), 0) for part in made if isinstance(part, tuple))
        if weight > _HEAVIEST:
            raise pickle.UnpicklingError(f"a tuple of more than {_HEAVIEST} parts")
        self._weights[id(made)] = weight
        self._weighed.append(made)

    def find_class(self, module: str, name: str, /) -> Any:
        """Return a stand-in for a global name; nothing is looked up or imported."""
        build = _BUILDERS.get((module, name))
        if build is not None:
            return _Known(build)
        if module in {"torch", "torch.storage"} and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        return Inert

    def persistent_load(self, pid: Any, /) -> StorageRef:
        """Describe the storage that a tensor refers to."""
        if not (isinstance(pid, tuple) and len(pid) in {5, 6} and pid[0] == "storage"):
            raise pickle.UnpicklingError("a reference that is not a tensor storage")
        kind, key, numel = pid[1], pid[2], pid[4]
        if not isinstance(key, str) or not isinstance(numel, int) or numel < 0:
            raise pickle.UnpicklingError("a storage whose name or size is of another type")
        if not isinstance(kind, _StorageType):
            raise pickle.UnpicklingError(f"storage {quoted(key)} has an unsupported element type")
        if len(pid) == 6 and pid[5] is not None:
            raise pickle.UnpicklingError(f"storage {quoted(key)} is a view of another")
        ref = StorageRef(key, kind.dtype, numel)
        if self.storages.setdefault(ref.key, ref) != ref:
            raise pickle.UnpicklingError(f"storage {quoted(key)} has two descriptions")
        return ref


def unpickle(
    stream: BinaryIO | bytes, source: str, storages: dict[str, StorageRef] | None = None
) -> Any:
    """Read one pickle into plain containers, `TensorRef` and `Inert`.

    Args:
        stream: the bytes, or a file positioned at them (left after the pickle).
        source: what to call it in messages.
        storages: gathers every storage that is named, also inside of `Inert` objects.

    Raises CheckpointError: damaged bytes, or a tensor that contradicts itself.
    """
    file = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    try:
        _check_memo(file)
        reader = _Reader(file)
        reader.storages = {} if storages is None else storages
        return reader.load()
    except _PICKLE_FAULTS as err:
        raise CheckpointError(
            f"{source} is damaged or not a PyTorch checkpoint ({first_line(err)}); "
            "copy or download it again"
        ) from err


def _check_memo(file: BinaryIO) -> None:
    """Refuse a pickle that numbers its objects beyond its own length; leaves `file` as it was.

    The standard unpickler makes room for every number up to the largest, gigabytes for six bytes.
    """
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if "PUT" in opcode.name and (argument or 0) > (position or 0):
            raise pickle.UnpicklingError(f"object number {argument} in so short a file")
    file.seek(start)


def first_line(err: BaseException) -> str:
    """Return the beginning of a message, which may repeat whole files."""
    text = str(err).strip() or type(err).__name__
    return text.splitlines()[0][:120]
