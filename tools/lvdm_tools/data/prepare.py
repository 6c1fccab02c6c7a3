"""A published data set, made a folder that training and evaluation read, item by item.

Every frame is decoded once before anything is written: what is damaged or too short is left out,
with its reason. What is whole and may keep its size is linked: no pixel is changed, training crops
and resizes as it reads, and a second lossy coding would show in the distances of an evaluation.
Frames are written only where a size is asked, or a box cuts something out.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import msgspec
import numpy as np

from lvdm_engines import lock
from lvdm_engines.atomic import new_directory, partial_of, put_in_place, read_file, whole_file
from lvdm_engines.errors import TrainingError, VideoError, cause
from lvdm_rt.video import Frames, VideoSpec, open_writer
from lvdm_rt.video.picture import resize, to_pixels
from lvdm_rt.video.reader import picture_files
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.layouts import LAYOUTS, Box, Item
from lvdm_tools.data.video_file import every_frame, read_clip, size_and_rate

RECORD = "prepared.json"
_BOXED = 256  # pixels of a side of what boxes cut out, where no size is asked: the field's
_BLOCK = 64  # frames written at a time
_SECONDS = 5.0  # between two writings of the record
_RATE = Fraction(25)  # of written videos whose source names none


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides what the folder holds; a run is gone on with only by the same.

    `size` is the side of square frames in pixels, None as they are; items of fewer than
    `min_frames` are left out; `split` is one of UCF-101's three.
    """

    kind: str
    source: str
    size: int | None = None
    form: Literal["png", "mp4"] = "png"
    min_frames: int = 16
    split: int = 1


class Taken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item that is there: `file` below the folder, its frames, and what they were made of."""

    file: str
    frames: int
    source: str
    source_size: tuple[int, int]  # (width, height)
    source_fps: float | None  # None of pictures


class Prepared(msgspec.Struct, forbid_unknown_fields=True):
    """`prepared.json`: what was asked, what was taken, and what was left out for which reason."""

    recipe: Recipe
    complete: bool = False
    taken: dict[str, Taken] = {}
    left_out: dict[str, str] = {}

    def count(self, part: str) -> int:
        """Return how many items of a part, train or test, are there."""
        return sum(name.startswith(f"{part}/") for name in self.taken)


Watch = Callable[[int, int], None]  # items done, of all


def prepare(recipe: Recipe, out: Path, jobs: int, watch: Watch) -> Prepared:
    """Make the folder `out`, or go on where a run of the same recipe stopped.

    Raises TrainingError: nothing of the set is found or usable, or `out` is of something else;
    VideoError: a frame cannot be written. What is finished then stays, for the next run.
    """
    source = Path(recipe.source)
    _check_places(source, out)
    found = LAYOUTS[recipe.kind](source, recipe.split)
    if recipe.size is None and any(item.box for item in found.items.values()):
        recipe = msgspec.structs.replace(recipe, size=_BOXED)
    with _held(out):
        record = _begun(recipe, out)
        record.left_out = dict(found.left_out)
        todo = {name: item for name, item in found.items.items() if name not in record.taken}
        try:
            _make_all(todo, record, out, jobs, watch)
            record.complete = True
        finally:
            _write(record, out)
    if not record.taken:
        reason = next(iter(record.left_out.values()), "no video stands where they should")
        raise TrainingError(f"{source}: nothing of it can be used; {reason}; see {out / RECORD}")
    return record


def _check_places(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise TrainingError(f"{source} is not a folder; give the folder that the set was put in")
    if out.resolve().is_relative_to(source.resolve()):
        raise TrainingError(f"{out} lies inside of {source}; choose a place outside of it")


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Make the folder and keep others from it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        holder = lock.acquire(out)
    except BlockingIOError as err:
        raise TrainingError(f"{out} is being prepared by another process; wait for it") from err
    except OSError as err:
        raise TrainingError(f"cannot make the folder {out}: {cause(err)}") from err
    try:
        yield
    finally:
        lock.release(holder)


def _begun(recipe: Recipe, out: Path) -> Prepared:
    """Return the record of `out`, without what has gone since, or a new one."""
    path = out / RECORD
    if not path.exists():
        strangers = [entry.name for entry in out.iterdir() if entry.name != lock.LOCK_FILE]
        if strangers:
            raise TrainingError(
                f"{out} holds {strangers[0]} and no {RECORD}; choose a new or an empty folder"
            )
        record = Prepared(recipe)
        _write(record, out)
        return record
    try:
        record = msgspec.json.decode(read_file(path), type=Prepared)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise TrainingError(f"cannot read {path}: {err}; choose another folder") from err
    for name in recipe.__struct_fields__:
        before, asked = getattr(record.recipe, name), getattr(recipe, name)
        if before != asked:
            raise TrainingError(
                f"{out} was prepared with {name} {before}, and now {asked} is asked; ask for the "
                "same, or choose another folder"
            )
    record.taken = {name: item for name, item in record.taken.items() if _stands(out / item.file)}
    record.complete = False
    return record


def _stands(path: Path) -> bool:
    """Tell whether a file or a folder is there, and not only a link to what has gone."""
    return any(path.iterdir()) if path.is_dir() else path.is_file()


def _write(record: Prepared, out: Path) -> None:
    try:
        with whole_file(out / RECORD) as file:
            file.write(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    except OSError as err:
        raise TrainingError(f"cannot write {out / RECORD}: {cause(err)}") from err


def _make_all(todo: dict[str, Item], record: Prepared, out: Path, jobs: int, watch: Watch) -> None:
    """Make what is not there yet, several at a time; the record is kept up to date."""
    before, written = len(record.taken), time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            name: pool.submit(_make, name, item, record.recipe, out) for name, item in todo.items()
        }
        try:
            for count, (name, future) in enumerate(futures.items(), before + 1):
                made = future.result()
                if isinstance(made, Taken):
                    record.taken[name] = made
                else:
                    record.left_out[name] = made
                if time.monotonic() - written > _SECONDS:
                    _write(record, out)
                    written = time.monotonic()
                watch(count, before + len(todo))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _make(name: str, item: Item, recipe: Recipe, out: Path) -> Taken | str:
    """Make one item; returns why it is left out where it cannot be used."""
    try:
        first, last = (0, None) if item.box is None else _span(item.source, item.box)
        frames, size = _decode(item.source, first, last)
        if frames < recipe.min_frames:
            return f"it has {frames} frames, and {recipe.min_frames} are asked for (--min-frames)"
        if recipe.size is None:
            file = _link(name, item.source, out)
        else:
            file = _copy(name, item, recipe, out, range(first, first + frames))
    except TrainingError as err:
        return str(err)
    except OSError as err:
        raise VideoError(
            f"cannot write {err.filename or out}: {cause(err, '')}; mend that, and run the "
            "same command again"
        ) from err
    source = item.source.relative_to(recipe.source).as_posix()
    _, rate = size_and_rate(item.source)
    return Taken(file, frames, source, size, None if rate is None else float(rate))


def _decode(path: Path, first: int, last: int | None) -> tuple[int, tuple[int, int]]:
    """Decode every frame that is wanted; returns their number and (width, height)."""
    count, size = 0, (0, 0)
    for frame in every_frame(path, first, last):
        size, count = (frame.width, frame.height), count + 1
    return count, size


def _span(path: Path, box: Box) -> tuple[int, int]:
    """Return the first frame of a box, and the one after its last, at the video's own rate.

    Tables have rates of two decimals, and no other may move a box by a frame.
    """
    _, own = size_and_rate(path)
    rate = (round(own, 2) if own else box.fps) / box.fps
    return math.ceil(box.start * rate), math.ceil(box.end * rate)


def _link(name: str, source: Path, out: Path) -> str:
    """Link a file, or make a folder of links to pictures, which a search through folders finds."""
    source = source.resolve()
    if source.is_file():
        target = _place(out, f"{name}{source.suffix}")
        part = partial_of(target)
        part.symlink_to(source)
        part.replace(target)
        return target.relative_to(out).as_posix()
    target = _place(out, name)
    with new_directory(target) as folder:
        for picture in picture_files(source):
            (folder / picture.name).symlink_to(picture)
        put_in_place(folder, target)
    return name


def _copy(name: str, item: Item, recipe: Recipe, out: Path, frames: range) -> str:
    """Write the frames of an item, cropped and resized."""
    side = recipe.size or _BOXED
    file = f"{name}.mp4" if recipe.form == "mp4" else name
    target = _place(out, file)
    rate = (size_and_rate(item.source)[1] or _RATE).limit_denominator(1001)
    fps = rate if 1 <= rate <= 1000 else _RATE
    spec = VideoSpec(frames=len(frames), size=(side, side), fps=fps)
    # a trailing slash: pictures, whatever dots a name has
    place = str(target) if recipe.form == "mp4" else f"{target}/"
    with open_writer(place, spec, replace=True) as writer:
        if item.box is None:
            for start in frames[::_BLOCK]:
                count = min(_BLOCK, len(frames) - start)
                writer.write(read_clip(item.source, start, ClipSpec(count, (side, side))))
        else:
            for frame in every_frame(item.source, frames.start, frames.stop):
                writer.write(_cut(frame, item.box, side)[None])
    return file


def _cut(frame: av.VideoFrame, box: Box, side: int) -> Frames:
    """Cut a box out of a frame of any size, and resize it: uint8 (side, side, 3)."""
    (width, height), (left, top, right, bottom) = box.size, box.corners
    left, right = (x * frame.width // width for x in (left, right))
    top, bottom = (y * frame.height // height for y in (top, bottom))
    pixels = np.asarray(to_pixels(frame)[top : max(bottom, top + 1), left : max(right, left + 1)])
    return resize(pixels, (side, side))


def _place(out: Path, file: str) -> Path:
    """Return where a file goes, its folder made."""
    target = out / file
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
