"""Features and statistics of clips, made once: whatever was measured is kept in the user's cache.

A group of videos is one file, so that an interrupted evaluation goes on where it stopped.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.user_folders import keep_cached, read_cached
from lvdm_tools.quality import metrics
from lvdm_tools.quality.blocks import Wanted
from lvdm_tools.quality.distances import Features
from lvdm_tools.quality.networks import FeatureNetwork
from lvdm_tools.quality.subjects import Cut, Subject

GROUP = 4  # videos that are generated side by side, and kept together
BATCH = 8  # clips in one call of the network
STATISTICS: dict[str, Callable[[NDArray[np.uint8]], float]] = {
    "brightness": lambda clips: float(np.mean(metrics.mean_colour(clips))),
    "contrast": metrics.contrast,
    "spectrum slope": metrics.spectrum_slope,
    "frame-to-frame change": metrics.frame_change,
}


def place(
    subject: Subject,
    network: FeatureNetwork,
    videos: range,
    wanted: Wanted,
    say: Callable[[str], None] = lambda _: None,
) -> Features:
    """Return statistics, in the order of STATISTICS, and features: (videos, clips, 4 + d).

    Raises what reading, generating and the network raise; groups that are finished are kept.
    """
    rows = []
    for start in range(videos.start, videos.stop, GROUP):
        group = range(start, min(start + GROUP, videos.stop))
        rows.append(_group(subject, network, group, wanted))
        say(f"{subject.label}: {group.stop - videos.start} of {len(videos)} videos")
    return np.concatenate(rows)


def _group(subject: Subject, network: FeatureNetwork, group: range, wanted: Wanted) -> Features:
    identities = (version("lvdm-rt"), subject.identity, subject.size, network.identity)
    parts = (*identities, group, wanted.frames, *([wanted] if wanted.every > 1 else []))
    name = f"evaluation/{hashlib.sha256(repr(parts).encode()).hexdigest()}.npy"
    kept = read_cached(name)
    if kept is not None:
        found: Features = np.load(io.BytesIO(kept), allow_pickle=False)
        return found
    rows = _measured(subject.clips(group, wanted), network, group, wanted.clips)
    file = io.BytesIO()
    np.save(file, rows)
    keep_cached(name, file.getvalue())
    return rows


def _measured(
    clips: Iterator[Cut], network: FeatureNetwork, group: range, numbers: Sequence[int]
) -> Features:
    rows: dict[tuple[int, int], Features] = {}
    while batch := list(islice(clips, BATCH)):
        pixels = np.stack([frames for _, _, frames in batch])
        statistics = [[measure(clip[None]) for measure in STATISTICS.values()] for clip in pixels]
        measured = np.hstack([np.array(statistics), network.run(pixels)])
        rows.update(zip([(video, number) for video, number, _ in batch], measured, strict=True))
    return np.array([[rows[video, number] for number in numbers] for video in group])
