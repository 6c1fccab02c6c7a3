import numpy as np
import pytest
from click.testing import CliRunner

from lvdm_engines.errors import OptionsError
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.command import command
from lvdm_tools.data.source import open_source
from lvdm_tools.data.synth import sky_clip


def run(*arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_folder_of_skies_can_be_trained_on(tmp_path):
    run("-o", tmp_path / "skies", "--clips", 2, "--frames", 6, "--size", 32, "--seed", 3)
    names = sorted(path.name for path in (tmp_path / "skies").glob("*.mp4"))
    assert names == ["sky-00000.mp4", "sky-00001.mp4"]
    clip = open_source(tmp_path / "skies", ClipSpec(6, (32, 32))).clip(0)
    errors = [np.abs(clip - sky_clip(3, 6, 32, index=i).astype(float)).mean() for i in range(2)]
    assert min(errors) < 12  # lossy codec, chroma at half resolution


def test_a_single_clip_is_written_to_a_file_of_the_asked_kind(tmp_path):
    out = tmp_path / "sky.npz"
    run("-o", out, "--frames", 70, "--size", "24x16", "--first", 5)
    with np.load(out) as archive:
        frames = archive["frames"]
    expected = sky_clip(0, 70, (16, 24), index=5)
    assert np.abs(frames - expected.astype(int)).max() <= 1  # blocks round differently


def test_what_exists_is_replaced_by_force_only(tmp_path):
    small = ["-o", tmp_path / "skies", "--frames", 2, "--size", 16]
    run(*small)
    run(*small, "--first", 1)  # beside it
    before = (tmp_path / "skies" / "sky-00001.mp4").read_bytes()
    with pytest.raises(OptionsError, match=r"sky-00001\.mp4: it exists; --force replaces it"):
        run(*small, "--first", 1, "--seed", 4)
    assert (tmp_path / "skies" / "sky-00001.mp4").read_bytes() == before
    run(*small, "--first", 1, "--seed", 4, "--force")
    assert (tmp_path / "skies" / "sky-00001.mp4").read_bytes() != before


@pytest.mark.parametrize(
    ("out", "words", "told"),
    [
        ("sky.mp4", ["--force"], "it is a folder"),
        ("link.mp4", ["--force"], "it is a link"),
        ("many.mp4", ["--clips", 2], "give a folder"),
    ],
)
def test_a_place_that_cannot_hold_the_clips_is_refused(tmp_path, out, words, told):
    (tmp_path / "sky.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(OptionsError, match=told):
        run("-o", tmp_path / out, "--frames", 2, "--size", 16, *words)
    assert not (tmp_path / "elsewhere.mp4").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--size", "big"], "is not a size"),
        (["--size", "9" * 5000], "is not a size"),
        (["--fps", "nan"], "is not a number"),
    ],
)
def test_what_is_no_size_or_rate_is_a_usage_error(tmp_path, words, told):
    result = CliRunner().invoke(command, ["-o", str(tmp_path / "s"), *words])
    assert result.exit_code == 2
    assert told in result.output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("labels", ["labels", "{}", '{"labels": []}'])
def test_a_file_of_somebody_else_beside_a_clip_is_kept(tmp_path, labels, force):
    (tmp_path / "sky.mp4.json").write_text(labels)
    with pytest.raises(OptionsError, match=r"sky\.mp4\.json exists and holds no settings of"):
        run("-o", tmp_path / "sky.mp4", "--frames", 2, "--size", 16, *force)
    assert [path.read_text() for path in tmp_path.iterdir()] == [labels]


def test_what_comes_meanwhile_is_kept(tmp_path, monkeypatch):
    def drawn(*given, **how):
        (tmp_path / "sky.npz").write_text("mine")
        return sky_clip(*given, **how)

    monkeypatch.setattr("lvdm_tools.data.command.sky_clip", drawn)
    with pytest.raises(OptionsError, match="it exists"):
        run("-o", tmp_path / "sky.npz", "--frames", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["sky.npz"]
    assert (tmp_path / "sky.npz").read_text() == "mine"


def test_a_video_of_the_runtime_is_replaced_by_force(tmp_path):
    (tmp_path / "sky.npz").touch()
    (tmp_path / "sky.npz.json").write_text('{"lvdm_rt": "0.1.0"}')
    run("-o", tmp_path / "sky.npz", "--frames", 2, "--size", 16, "--force")
    assert (tmp_path / "sky.npz").stat().st_size
