"""Pickles of unknown origin, read without importing or calling anything that they name.

Builds plain containers and descriptions of tensors; every other name becomes an `Inert` object
that swallows whatever is done to it. Knows nothing of files and archives.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from lvdm_engines.errors import CheckpointError, quoted
from lvdm_export.checkpoint.stand_ins import Inert, StorageRef, StorageType, TensorRef, stand_in

__all__ = ["Inert", "StorageRef", "TensorRef", "first_line", "unpickle"]

# What broken or hostile pickle bytes make the standard unpickler raise.
_PICKLE_FAULTS = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError,
    MemoryError, OverflowError, RecursionError, TypeError, ValueError,
)  # fmt: skip
_HEAVIEST = 10_000  # parts of a tuple


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
        return stand_in(module, name)

    def persistent_load(self, pid: Any, /) -> StorageRef | Inert:
        """Describe the storage that a tensor refers to, if it has a type that networks have."""
        if not (isinstance(pid, tuple) and len(pid) in {5, 6} and pid[0] == "storage"):
            raise pickle.UnpicklingError("a reference that is not a tensor storage")
        kind, key, numel = pid[1], pid[2], pid[4]
        if not isinstance(key, str) or not isinstance(numel, int) or numel < 0:
            raise pickle.UnpicklingError("a storage whose name or size is of another type")
        if not isinstance(kind, StorageType):
            return Inert()  # which may be an optimizer's, and is read by nobody
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
