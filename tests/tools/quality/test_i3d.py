from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional
from toy_files import python
from toy_i3d import OtherNetwork, TinyI3d, save

from lvdm_engines.errors import ConfigError, OptionsError
from lvdm_tools.quality import convert_i3d, i3d
from lvdm_tools.quality.networks import open_network


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The network as TorchScript, and as ONNX made by the command."""
    folder = tmp_path_factory.mktemp("i3d")
    save(TinyI3d(), folder / "i3d.pt")
    words = [str(folder / "i3d.pt"), "-o", str(folder / "i3d.onnx")]
    done = CliRunner().invoke(convert_i3d.command, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "of the largest logit" in done.output
    return folder / "i3d.pt", folder / "i3d.onnx"


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(1).integers(0, 256, (3, 16, 20, 30, 3), np.uint8)


@pytest.mark.parametrize("size", [(20, 30), (224, 224), (300, 260), (1, 5)])
def test_frames_are_resized_as_torch_does_it(size):
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, *size, 3), np.uint8)
    pixels = torch.from_numpy(frames[0]).permute(0, 3, 1, 2).float() * 2 / 255 - 1
    wanted = functional.interpolate(pixels, (224, 224), mode="bilinear", align_corners=False)
    got = i3d.prepare(frames)
    assert got.shape == (1, 3, 2, 224, 224)
    # torch has the places of 224 pixels in single precision as well
    np.testing.assert_allclose(got[0].swapaxes(0, 1), wanted.numpy(), atol=1e-4)


def test_both_files_give_the_logits_of_the_call_that_the_field_uses(files, clips):
    pixels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float()
    with torch.inference_mode():
        wanted = TinyI3d()(pixels, rescale=True, resize=True, return_features=True).numpy()
    for file in files:
        np.testing.assert_allclose(i3d.open_i3d(file)(clips), wanted, atol=1e-5)


def test_logits_do_not_depend_on_the_size_of_a_batch(files, clips):
    for file in files:
        opened = i3d.open_i3d(file)
        single = np.concatenate([opened(clip[None]) for clip in clips])
        np.testing.assert_allclose(opened(clips), single, atol=1e-5)


def test_only_distances_between_its_features_are_called_fvd_and_kvd(files):
    with open_network(str(files[1])) as network, open_network("random") as other:
        assert (network.frechet, network.kernel, network.published) == ("FVD", "KVD", True)
        assert (other.frechet, other.published) == ("Fréchet distance", False)


def test_an_evaluation_with_onnx_needs_no_torch(files):
    program = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from lvdm_tools.quality import command, comparing
from lvdm_tools.quality.networks import open_network
with open_network({str(files[1])!r}, "cpu") as network:
    print(network.run(np.zeros((1, 16, 8, 8, 3), np.uint8)).shape)
"""
    assert python(program).stdout.strip() == "(1, 400)"


def test_a_network_that_is_not_there_says_where_to_put_it():
    with pytest.raises(ConfigError, match="there is no such file; FVD needs the I3D network"):
        i3d.open_i3d(Path("nowhere/i3d_torchscript.pt"))


def damaged(path, files):
    path.write_bytes(files[path.suffix == ".onnx"].read_bytes()[:1000])


def foreign(path, files):
    if path.suffix == ".pt":
        save(OtherNetwork(), path)
        return
    model = convert_i3d.onnx.load(files[1])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 32
    convert_i3d.onnx.save(model, path)


@pytest.mark.parametrize("spoil", [damaged, foreign])
@pytest.mark.parametrize("name", ["i3d.pt", "i3d.onnx"])
def test_what_is_no_i3d_network_is_refused_in_one_line(tmp_path, files, clips, spoil, name):
    spoil(tmp_path / name, files)
    with pytest.raises(ConfigError, match=r"it is (no|another).*FVD needs the I3D network") as told:
        i3d.open_i3d(tmp_path / name)(clips)
    assert len(str(told.value)) < 600


def test_a_network_with_other_features_is_refused(tmp_path, clips):
    class Short(TinyI3d):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Linear(6, 10)

    save(Short(), tmp_path / "i3d.pt")
    with pytest.raises(ConfigError, match=r"got features \(3, 10\), expected \(3, 400\)"):
        i3d.open_i3d(tmp_path / "i3d.pt")(clips)


def test_a_graph_that_computes_something_else_is_not_left_behind(files, tmp_path, monkeypatch):
    opened = i3d.open_i3d

    def other(path, *, gpu):
        network = opened(path, gpu=gpu)
        return lambda clips: network(clips) + (path.suffix == ".onnx")

    monkeypatch.setattr(convert_i3d, "open_i3d", other)
    with pytest.raises(ConfigError, match=r"it differs by .*; give the TorchScript file"):
        convert_i3d.to_onnx(files[0], tmp_path / "new.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_replaces_no_file_and_writes_onnx_only(files, tmp_path):
    taken = tmp_path / "taken.onnx"
    taken.write_text("mine")
    for name, told in (("taken.onnx", "it exists"), ("new.pt", r"ends in \.onnx")):
        with pytest.raises(OptionsError, match=told):
            CliRunner().invoke(
                convert_i3d.command,
                [str(files[0]), "-o", str(tmp_path / name)],
                catch_exceptions=False,
            )
    assert taken.read_text() == "mine"
