"""The networks against recorded outputs of the authors' code."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lvdm_export.nets.autoencoder2d import Autoencoder2d, Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig


def tensors(arrays):
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def relative_error(actual, expected):
    return float(np.abs(actual.numpy() - expected).max() / np.abs(expected).max())


def unet(case):
    known = {f for f in UNet3dConfig.__dataclass_fields__ if f in case.config}
    fields = {f: tuple(v) if isinstance(v := case.config[f], list) else v for f in known}
    fields.setdefault("use_scale_shift_norm", False)
    network = UNet3d(UNet3dConfig(**fields))
    network.load_state_dict(tensors(case.weights))
    return network.eval()


def autoencoder(case):
    if case.config["kind"] == "ae3d":
        network = Autoencoder3d(
            Autoencoder3dConfig(
                n_hiddens=case.config["n_hiddens"], downsample=tuple(case.config["downsample"])
            )
        )
    else:
        names = ("ch", "num_res_blocks", "resolution")
        network = Autoencoder2d(
            Autoencoder2dConfig(
                **{n: case.config[n] for n in names}, ch_mult=tuple(case.config["ch_mult"])
            )
        )
    network.load_state_dict(tensors(case.weights))
    return network.eval()


@torch.inference_mode()
@pytest.mark.parametrize("name", ["ae3d_488", "ae3d_244", "ae2d"])
def test_autoencoder_reproduces_the_official_moments_and_frames(golden, name):
    case = golden(name)
    network = autoencoder(case)
    moments = network.encode(torch.from_numpy(case.arrays["x"]))
    assert relative_error(moments, case.arrays["moments"]) < 1e-4
    z = case.arrays.get("z", case.arrays["moments"][:, :4])
    assert relative_error(network.decode(torch.from_numpy(z)), case.arrays["decoded"]) < 1e-4


@torch.inference_mode()
@pytest.mark.parametrize("name", ["unet_short", "unet_pred", "unet_interp", "unet_t2v"])
def test_unet_reproduces_the_official_noise_prediction(golden, name):
    case = golden(name)
    network = unet(case)
    arrays = tensors(case.arrays)
    mask = arrays.get("mask")
    x = arrays["x"] if mask is None else arrays["x"][:, :-1]
    eps = network(x, arrays["t"], mask=mask, context=arrays.get("context"))
    assert relative_error(eps, case.arrays["eps"]) < 1e-4
    if "s" in arrays:
        eps = network(x, arrays["t"], mask=mask, noise_level=arrays["s"])
        assert relative_error(eps, case.arrays["eps_s"]) < 1e-4


@torch.inference_mode()
def test_a_noise_level_of_minus_one_equals_no_noise_level(golden):
    case = golden("unet_pred")
    network = unet(case)
    arrays = tensors(case.arrays)
    x, none = arrays["x"][:, :-1], torch.tensor([-1, -1])
    plain = network(x, arrays["t"], mask=arrays["mask"])
    assert torch.equal(plain, network(x, arrays["t"], mask=arrays["mask"], noise_level=none))
