"""Where the published data sets keep their videos, and which of them are for training.

Knows the layouts of UCF-101, Sky Time-lapse and Taichi-HD; opens no video and writes nothing.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from lvdm_engines.atomic import read_file
from lvdm_engines.errors import TrainingError, cause, quoted
from lvdm_tools.data.folder import SUFFIXES, find_videos

PARTS = ("train", "test")
_COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height")
_UCF_NAME = re.compile(r"v_\w+_g\d+_c\d+")
_UCF_ROW = re.compile(r"(\w+)/(v_\w+_g\d+_c\d+)\.avi(?: \d+)?")


@dataclass(frozen=True)
class Box:
    """A part of a video in time and space.

    `start` ≤ frame < `end` at `fps`; `corners` are (left, top, right, bottom) in pixels of pictures
    of `size` (width, height).
    """

    start: int
    end: int
    fps: Fraction
    corners: tuple[int, int, int, int]
    size: tuple[int, int]

    @property
    def is_possible(self) -> bool:
        """Whether it holds a frame and a pixel, and none beyond the picture."""
        left, top, right, bottom = self.corners
        width, height = self.size
        inside = 0 <= left < right <= width and 0 <= top < bottom <= height
        return inside and 0 <= self.start < self.end and self.fps > 0


@dataclass(frozen=True)
class Item:
    """One video of a set: a whole file or folder of pictures, or what a box cuts out of one."""

    source: Path
    box: Box | None = None


@dataclass
class Found:
    """The items of a set by the names that they get, `train/…` or `test/…`, and what is missing."""

    items: dict[str, Item] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, item: Item) -> None:
        """Take an item, unless another one has its name."""
        if name in self.items:
            told = f"{item.source} has the name of {self.items[name].source}; rename one of them"
            self.left_out[f"{name} ({item.source.name})"] = told
        else:
            self.items[name] = item


def ucf101(source: Path, split: int) -> Found:
    """Find UCF-101: `v_Class_g01_c01.avi`, or folders of its frames, and the lists of a split.

    The lists of the three official splits are `trainlist01.txt`, `testlist01.txt` and so on.
    Raises TrainingError: no lists, or a line in them that names no video.
    """
    videos = {v.stem: v for v in find_videos(source) if _UCF_NAME.fullmatch(v.stem)}
    found = Found()
    for part in PARTS:
        listed = _list(source, f"{part}list{split:02}.txt")
        for folder, name in _rows(listed):
            if name in videos:
                found.add(f"{part}/{folder}/{name}", Item(videos.pop(name)))
            else:
                told = f"{listed.name} names it, but it is not below {source}"
                found.left_out[f"{part}/{folder}/{name}"] = told
    found.left_out |= dict.fromkeys(videos, f"neither list of split {split} names it")
    return found


def _list(source: Path, name: str) -> Path:
    lists = sorted(source.rglob(name))
    if not lists:
        raise TrainingError(
            f"{source} holds no {name}; put the folder ucfTrainTestlist beside the folders of "
            "classes, or train on all videos alike with --data and that folder, as it is"
        )
    return lists[0]


def _rows(listed: Path) -> Iterator[tuple[str, str]]:
    """Yield class and name of each video of a list."""
    for number, line in enumerate(_text(listed).splitlines(), 1):
        row = _UCF_ROW.fullmatch(line.strip())
        if row is not None:
            yield row[1], row[2]
        elif line.strip():
            raise TrainingError(
                f"{listed}, line {number}: got {quoted(line)}, expected "
                "Archery/v_Archery_g01_c01.avi and, of training, a number; restore the list"
            )


def sky_timelapse(source: Path, _split: int) -> Found:
    """Find Sky Time-lapse: `sky_train/VIDEO/CLIP/*.jpg` and `sky_test`, one of them at least.

    Raises TrainingError: neither is there.
    """
    parts = _parts(source, "sky_{}", "{}")
    if not parts:
        raise TrainingError(
            f"{source} holds no folder sky_train or sky_test; give the folder that holds them"
        )
    return _of_parts(parts)


def taichi(source: Path, _split: int) -> Found:
    """Find Taichi-HD: cut already, `train/*.mp4` or folders of pictures, or to be cut.

    To be cut are whole videos, `VIDEO_ID.mp4`, by the boxes of one `*metadata*.csv`.
    Raises TrainingError: neither is there, or a row of the boxes makes no sense.
    """
    if parts := _parts(source, "{}"):
        return _of_parts(parts)
    tables = sorted(source.glob("*metadata*.csv"))
    if len(tables) != 1:
        raise TrainingError(
            f"{source} holds {len(tables)} files *metadata*.csv and no folder train or test; give "
            "a folder with videos that are cut already (train, test), or with taichi-metadata.csv "
            "and the whole videos"
        )
    videos = {video.stem: video for video in find_videos(source)}
    found = Found()
    for name, video, box in _boxes(tables[0]):
        if video not in videos:
            found.left_out[name] = f"{tables[0].name} names {video}.mp4, which is not there"
        elif not box.is_possible:
            found.left_out[name] = f"its box {box.corners} does not lie inside of {box.size}"
        else:
            found.add(name, Item(videos[video], box))
    return found


def _boxes(table: Path) -> Iterator[tuple[str, str, Box]]:
    """Yield name, video and box of each row; names are those of the first-order model's script.

    Tables without the column `partition` are of an early version: all of it is for training.
    """
    reader = csv.DictReader(_text(table).splitlines())
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise TrainingError(
            f"{table} has no column {missing[0]}; expected {', '.join(_COLUMNS)} and, perhaps, "
            "partition: get it anew"
        )
    for row in reader:
        try:
            part, box = _box(row)
        except (ValueError, ZeroDivisionError) as err:
            raise TrainingError(
                f"{table}, line {reader.line_num}: {err}; correct it, or get it anew"
            ) from err
        name = f"{row['video_id']}#{row['start'].zfill(6)}#{row['end'].zfill(6)}"
        yield f"{part}/{name}", row["video_id"], box


def _box(row: dict[str, str]) -> tuple[str, Box]:
    """Read part and box of a row. Raises ValueError, ZeroDivisionError."""
    if None in row.values():
        raise ValueError("a value is missing")
    part = row.get("partition", "train")
    if part not in PARTS:
        raise ValueError(f"partition is {quoted(part)}, expected train or test")
    left, top, right, bottom = (int(side) for side in row["bbox"].split("-"))
    return part, Box(
        start=int(row["start"]),
        end=int(row["end"]),
        fps=Fraction(row["fps"]),
        corners=(left, top, right, bottom),
        size=(int(row["width"]), int(row["height"])),
    )


def _parts(source: Path, *patterns: str) -> dict[str, Path]:
    """Return the folders of the parts that are there, by the first pattern that fits."""
    for pattern in patterns:
        folders = {part: source / pattern.format(part) for part in PARTS}
        there = {part: folder for part, folder in folders.items() if folder.is_dir()}
        if there:
            return there
    return {}


def _of_parts(parts: dict[str, Path]) -> Found:
    found = Found()
    for part, folder in parts.items():
        for video in find_videos(folder):
            # folders of pictures as well: the first-order model's script calls them NAME.mp4
            named = video.with_suffix("") if video.suffix.lower() in SUFFIXES else video
            found.add(f"{part}/{named.relative_to(folder).as_posix()}", Item(video))
    return found


def _text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8-sig")
    except OSError as err:
        raise TrainingError(f"cannot read {path}: {cause(err, 'restore it')}") from err
    except UnicodeDecodeError as err:
        raise TrainingError(f"{path} is no text ({err}); get it anew") from err


LAYOUTS: dict[str, Callable[[Path, int], Found]] = {
    "ucf101": ucf101,
    "sky-timelapse": sky_timelapse,
    "taichi": taichi,
}
