"""Networks that are baked for export compute what they did before."""

import pytest

torch = pytest.importorskip("torch")

from toy_nets import assert_close, small_unet

from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import FoldedConv, TokenConv, bake


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@torch.inference_mode()
def test_baking_changes_the_layout_of_weights_and_nothing_else():
    network = small_unet()
    x, t, mask = torch.randn(2, 4, 4, 8, 8), torch.tensor([3, 800]), torch.ones(2, 4)
    before = network(x, t, mask=mask)
    bake(network)
    assert_close(network(x, t, mask=mask), before)
    assert all(m.weight.dim() == 4 for m in network.modules() if isinstance(m, FoldedConv))
    assert all(m.weight.dim() == 2 for m in network.modules() if isinstance(m, TokenConv))
    autoencoder = Autoencoder3d(Autoencoder3dConfig(n_hiddens=4, norm_groups=4)).eval()
    z = torch.randn(1, 4, 2, 2, 2)
    before = autoencoder.decode(z)
    assert_close(bake(autoencoder).decode(z), before)


@torch.inference_mode()
@pytest.mark.parametrize("norm", [True, False])
def test_baked_embeddings_are_what_was_computed_for_each_number(norm):
    network = small_unet(num_classes=6, max_stride=4, timesteps=50, use_scale_shift_norm=norm)
    x, ends = torch.randn(5, 4, 4, 8, 8), torch.tensor([0, 49, 7, 7, 7])
    told = {
        "noise_level": torch.tensor([-1, 0, 5, -1, 2]),
        "stride": torch.tensor([1, 4, 2, 1, 4]),
        "mask": torch.zeros(5, 4),
    }
    before = network(x, ends, **told)
    assert_close(bake(network)(x, ends, **told), before)
    linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(m.in_features == 64 for m in linear) == 1  # one product for all blocks


@torch.inference_mode()
def test_a_pooled_context_is_added_to_the_embedding_before_baking_and_after():
    text = {"context_dim": 6, "use_temporal_transformer": True, "pooled_context": True}
    network = small_unet(num_classes=6, timesteps=50, **text)
    x, ends, context = torch.randn(2, 4, 4, 8, 8), torch.tensor([3, 40]), torch.randn(2, 7, 6)
    told = {"noise_level": torch.tensor([-1, 2]), "mask": torch.zeros(2, 4), "context": context}
    before = network(x, ends, **told)
    plain = network.embed(ends, told["noise_level"])
    pooled = network.embed(ends, told["noise_level"], context=context)
    assert_close(pooled - plain, network.text_emb(context.mean(dim=1)))
    assert_close(bake(network)(x, ends, **told), before)


def test_a_pooled_context_needs_text():
    with pytest.raises(ValueError, match="pooled_context needs a context_dim"):
        small_unet(pooled_context=True)
