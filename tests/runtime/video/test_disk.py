"""A disk that is full, played by the limit on file size of a child process."""

import pytest
from toy_files import python

CHILD = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from lvdm_engines.errors import VideoError
from lvdm_rt.video import VideoSpec, open_writer

folder, name = Path(sys.argv[1]), sys.argv[2]
frames = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
spec = VideoSpec(frames=24, size=(32, 32), fps=Fraction(8), settings='{"seed": 7}')
with open_writer(str(folder / name), spec) as writer:
    writer.write(frames)
target = folder / name
files = [*target.iterdir()] if target.is_dir() else [target]
whole = max(file.stat().st_size for file in files)
for file in files:
    file.unlink()
if target.is_dir():
    target.rmdir()
(folder / f"{name}.json").unlink()
for limit in (0, 100, whole // 3, whole * 2 // 3, whole - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with open_writer(str(folder / name), spec) as writer:
            for start in range(0, 24, 8):
                writer.write(frames[start : start + 8])
        raise SystemExit(f"no error at {limit} of {whole} bytes")
    except VideoError as err:
        if "the file is larger than it may be here; raise the limit" not in str(err):
            raise
    left = [path.name for path in folder.iterdir()]
    if left:
        raise SystemExit(f"{left} left at {limit} of {whole} bytes")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif", "sky.npz", "frames"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, name):
    child = python(CHILD, tmp_path, name)
    assert (child.returncode, child.stderr) == (0, "")
