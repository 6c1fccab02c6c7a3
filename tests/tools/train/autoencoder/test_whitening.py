"""Whitening the latents of an autoencoder."""

import pytest

torch = pytest.importorskip("torch")

from lvdm_engines.errors import TrainingError
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_tools.train.autoencoder.whitening import whitened


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Autoencoder3d(Autoencoder3dConfig(n_hiddens=4, norm_groups=2)).eval()
    with torch.no_grad():
        network.quant_conv.conv.weight[0].mul_(0.1)  # a faint channel
        network.quant_conv.conv.weight[3] += network.quant_conv.conv.weight[2]  # a repeated one
    return network


def test_whitened_latents_have_unit_covariance_and_reconstruct_the_same(network):
    frames = torch.randn(6, 3, 8, 16, 16).clamp(-1, 1)
    result = whitened(network, frames)
    with torch.inference_mode():
        means = result.encode(frames)[:, :4].transpose(0, 1).reshape(4, -1)
        assert torch.allclose(torch.cov(means), torch.eye(4), atol=1e-3)
        assert means.mean(1).abs().max() < 1e-4
        before, after = network(frames), result(frames)
    assert (after - before).abs().max() < 1e-4 * before.abs().max()


def test_the_network_itself_stays_as_it_was(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    whitened(network, torch.randn(2, 3, 8, 16, 16))
    assert all(before[name].equal(tensor) for name, tensor in network.state_dict().items())


def test_a_latent_channel_that_never_varies_is_refused(network):
    with torch.no_grad():
        network.quant_conv.conv.weight[1] = 0
    with pytest.raises(TrainingError, match="fewer than 4 dimensions"):
        whitened(network, torch.randn(2, 3, 8, 16, 16))


def test_one_latent_channel_can_be_whitened():
    torch.manual_seed(0)
    config = Autoencoder3dConfig(n_hiddens=4, norm_groups=2, z_channels=1, embed_dim=1)
    frames = torch.randn(6, 3, 8, 16, 16).clamp(-1, 1)
    result = whitened(Autoencoder3d(config).eval(), frames)
    with torch.inference_mode():
        assert result.encode(frames)[:, :1].std() == pytest.approx(1.0, abs=0.01)
