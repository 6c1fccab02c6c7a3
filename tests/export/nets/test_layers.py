"""Layers: the fast forms equal the plain ones, and the quirks that weights depend on stay."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: N812 - the name every torch reader expects
from toy_nets import assert_close, small_unet

from lvdm_export.nets.attention import attend, attend_frames, attend_maps
from lvdm_export.nets.attention_block import AttentionBlock
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import PaddedConv3d, PaddedConvTranspose3d, to_half, unit_gain
from lvdm_export.nets.norms import ClipNorm
from lvdm_export.nets.unet_blocks import timestep_embedding


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)])
def test_phase_convolutions_equal_a_padded_and_cropped_transposed_convolution(stride):
    layer = PaddedConvTranspose3d(3, 5, stride)
    x = torch.randn(2, 3, 3, 4, 5)
    padded = F.pad(x, layer.pad_input, mode="replicate")
    expected = F.conv_transpose3d(
        padded, layer.convt.weight, layer.convt.bias, stride=stride, padding=3
    )
    assert_close(layer(x), expected)


def test_replicate_padding_puts_the_larger_half_in_front():
    assert PaddedConv3d(1, 1, 4, (1, 2, 2)).pad_input == [1, 1, 1, 1, 2, 1]  # w, h, t


def test_the_autoencoder_is_shift_equivariant_in_time():
    network = Autoencoder3d(Autoencoder3dConfig(n_hiddens=4, norm_groups=4)).eval()
    still = torch.randn(1, 3, 1, 16, 16).expand(1, 3, 8, 16, 16)
    moments = network.encode(still)
    assert_close(moments[:, :, :1], moments[:, :, 1:], tolerance=1e-5)


@pytest.mark.parametrize("downsample", [(1, 2, 2), (2, 4, 4), (4, 2, 8), (4, 8, 8)])
def test_the_autoencoder_takes_any_power_of_two_triple(downsample):
    network = Autoencoder3d(
        Autoencoder3dConfig(n_hiddens=2, norm_groups=2, downsample=downsample)
    ).eval()
    moments = network.encode(torch.randn(1, 3, 4, 8, 8))
    assert moments.shape == (1, 8, *(n // d for n, d in zip((4, 8, 8), downsample, strict=True)))
    assert network.decode(moments[:, :4]).shape == (1, 3, 4, 8, 8)


def test_patches_of_pixels_become_channels_and_pixels_again():
    config = Autoencoder3dConfig(n_hiddens=2, norm_groups=2, downsample=(2, 4, 4), patch=2)
    network = Autoencoder3d(config).eval()
    assert network.encoder.conv_first.conv.in_channels == network.decoder.conv_out.conv.out_channels
    assert len(network.decoder.conv_blocks) == 1  # what patches halve, no level does
    frames = torch.randn(1, 3, 4, 8, 8)
    moments = network.encode(frames)
    assert moments.shape == (1, 8, 2, 2, 2)
    assert network.decode(moments[:, :4]).shape == frames.shape
    seen = []
    network.encoder.conv_first.register_forward_hook(lambda *call: seen.append(call[1][0]))
    network.encode(frames)
    corner = frames[:, :, :, 6:8, 2:4].permute(0, 2, 1, 3, 4).reshape(1, 4, 12)
    assert torch.equal(seen[0][:, :, :, 3, 1].transpose(1, 2), corner)


@pytest.mark.parametrize("patch", [3, 8, 4])
def test_a_patch_that_does_not_fit_the_downsampling_is_refused(patch):
    with pytest.raises(ValueError, match=f"patch (is )?{patch}(, expected a div| leaves no level)"):
        Autoencoder3dConfig(downsample=(1, 4, 4), patch=patch)


@pytest.mark.parametrize("downsample", [(3, 8, 8), (0, 8, 8), (1, 1, 1)])
def test_a_downsampling_that_is_no_power_of_two_is_refused(downsample):
    with pytest.raises(ValueError, match="powers of two"):
        Autoencoder3dConfig(downsample=downsample)


def test_clip_norm_spans_all_frames_of_a_clip_and_applies_scale_and_shift():
    norm = ClipNorm(2, 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 6, 4, 5) * 3 + 1  # (b, t, c, h, w)
    scale, shift = torch.randn(2, 6), torch.randn(2, 6)
    clip = F.group_norm(x.transpose(1, 2), 2, norm.weight, norm.bias, norm.eps)
    expected = clip * (1 + scale[:, :, None, None, None]) + shift[:, :, None, None, None]
    assert_close(norm(x.reshape(6, 6, 4, 5), 3).reshape(x.shape).transpose(1, 2), clip)
    actual = norm(x.reshape(6, 6, 4, 5), 3, scale, shift).reshape(x.shape).transpose(1, 2)
    assert_close(actual, expected)


def test_the_temporal_norm_is_per_pixel_over_its_frames():
    block = AttentionBlock(8, 2, 4, 4)
    x = torch.randn(2 * 3, 8, 2, 2)
    pixels = x.reshape(2, 3, 8, 4).permute(0, 3, 2, 1).reshape(8, 8, 3)  # (b·hw, c, t)
    expected = F.group_norm(pixels, 4, block.norm_t.weight, block.norm_t.bias, block.norm_t.eps)
    assert_close(block._norm_pixels(x, 3), expected.transpose(1, 2))


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("key_term", ["transposed", "plain"])
def test_the_key_position_term_is_indexed_as_the_weights_expect(key_term, short):
    q, k, v = torch.randn(3, 2, 2, 4, 8).unbind(0)  # (n, heads, t, d)
    k_rel, v_rel = torch.randn(4, 4, 8), torch.randn(4, 4, 8)
    scores = torch.zeros(2, 2, 4, 4)
    for i in range(4):
        for j in range(4):
            scores[..., i, j] = (q[..., i, :] * k[..., j, :]).sum(-1) * 8**-0.5
            if key_term == "transposed":
                scores[..., i, j] += (q[..., j, :] * k_rel[j, i]).sum(-1) * 8**-0.25
            else:
                scores[..., i, j] += (q[..., i, :] * k_rel[i, j]).sum(-1) * 8**-0.5
    weights = scores.softmax(-1)
    expected = weights @ v + (weights[..., None] * v_rel).sum(-2)
    assert_close(attend_frames((q, k, v), (k_rel, v_rel), key_term, short=short), expected)


def test_attention_over_maps_equals_that_over_tokens():
    q, k, v = torch.randn(3, 2, 2, 8, 6).unbind(0)  # (n, heads, d, pixels)
    tokens = (x.transpose(-1, -2) for x in (q, k, v))
    assert_close(attend_maps(q, k, v), attend(*tokens).transpose(-1, -2))


def test_a_clip_far_from_zero_is_normalised_as_exactly_as_one_around_it():
    norm = ClipNorm(2, 4)
    x = torch.randn(2, 4, 3, 3)
    assert_close(norm(x + 4096, 2), norm(x, 2), tolerance=2e-3)


def test_the_timestep_embedding_puts_cosines_first():
    embedding = timestep_embedding(torch.tensor([0, 7]), 6)
    assert embedding[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert embedding[1, 0].item() == pytest.approx(torch.tensor(7.0).cos().item())


@torch.inference_mode()
def test_equal_rows_of_a_batch_stay_equal_whatever_their_neighbours():
    network = small_unet()
    x = torch.randn(1, 4, 4, 8, 8)
    batch = torch.cat([x, torch.randn_like(x), x])
    t = torch.tensor([7, 900, 7])
    mask = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    eps = network(batch, t, mask=mask, noise_level=torch.tensor([3, -1, 3]))
    assert torch.equal(eps[0], eps[2])


@torch.inference_mode()
def test_half_precision_keeps_norms_and_time_embedding_in_float32_and_stays_close():
    network = small_unet()
    x, t, mask = torch.randn(2, 4, 4, 8, 8), torch.tensor([3, 800]), torch.ones(2, 4)
    expected = network(x, t, mask=mask)
    to_half(network)
    kept = {name for name, p in network.named_parameters() if p.dtype == torch.float32}
    assert {"time_embed.0.weight", "label_emb.weight", "out.0.weight"} <= kept
    assert "input_blocks.1.0.emb_layers.1.weight" in kept
    assert network.out[2].weight.dtype == torch.float16
    eps = network(x, t, mask=mask)
    assert eps.dtype == torch.float32
    assert_close(eps, expected, tolerance=1e-2)


def test_norm_statistics_survive_half_precision_inputs_whose_squares_overflow():
    norm = ClipNorm(2, 4)
    x = torch.randn(2, 4, 3, 3) * 3000
    actual = norm(x.half(), 2).float()
    assert_close(actual, norm(x, 2), tolerance=2e-3)


def test_softmax_runs_in_float32_for_half_precision_scores():
    q = torch.full((1, 1, 3, 64), 60.0)  # scores of 60·60·8 = 28,800 each, equal
    v = torch.randn(1, 1, 3, 64)
    out = attend(q.half(), q.half(), v.half()).float()
    assert_close(out, v.mean(2, keepdim=True).expand(1, 1, 3, 64), tolerance=2e-3)


@pytest.mark.parametrize("groups", [4, 16])
def test_the_group_count_of_the_norms_is_a_setting(groups):
    network = small_unet(norm_groups=groups)
    assert {m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)} == {
        groups
    }


def test_a_text_model_without_context_says_what_it_needs():
    network = small_unet(
        in_channels=4, num_classes=None, context_dim=6, use_temporal_transformer=True
    )
    with pytest.raises(ValueError, match="needs a context"):
        network(torch.randn(1, 4, 4, 8, 8), torch.tensor([1]))


def test_a_new_autoencoder_keeps_the_brightness_of_its_input_distinguishable():
    network = Autoencoder3d(Autoencoder3dConfig(n_hiddens=8, norm_groups=2)).eval()
    levels = torch.linspace(-1, 1, 5)[:, None, None, None, None].expand(5, 3, 4, 16, 16)
    with torch.inference_mode():
        means = network.encode(levels)[:, :4].mean((2, 3, 4))  # (levels, channels)
    neighbours = (means[1:] - means[:-1]).norm(dim=1)
    assert neighbours.min() > 0.05 * means.norm(dim=1).max()


def test_unit_gain_keeps_the_variance_of_its_input():
    x = torch.randn(4, 16, 4, 8, 8)
    for layer in (PaddedConvTranspose3d(16, 8, (2, 2, 2)), PaddedConv3d(16, 8, 3)):
        assert unit_gain(layer)(x).std().item() == pytest.approx(1.0, rel=0.25)


def velocity_unet():
    network = small_unet(prediction="v", timesteps=1000)
    network.velocity.alpha_bar.copy_(torch.linspace(0.9985, 0.0004, 1000))
    return network


@torch.inference_mode()
def test_a_velocity_becomes_the_noise_it_was_made_of():
    velocity = velocity_unet().velocity
    z_0, eps, t = (
        torch.randn(3, 4, 2, 8, 8),
        torch.randn(3, 4, 2, 8, 8),
        torch.tensor([0, 500, 999]),
    )
    signal, noise = (a[:, None, None, None, None] for a in _amplitudes(velocity.alpha_bar[t]))
    x, v = signal * z_0 + noise * eps, signal * eps - noise * z_0
    assert_close(velocity(v, x, t), eps, tolerance=1e-6)


def _amplitudes(alpha_bar):
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@torch.inference_mode()
def test_half_precision_keeps_small_values_of_its_float32_layers_to_the_last_bit():
    network = velocity_unet()
    table = network.velocity.alpha_bar.clone()
    table[-1] = 1.2345678e-5
    network.velocity.alpha_bar.copy_(table)
    weight = network.time_embed[0].weight.clone()
    to_half(network)
    assert torch.equal(network.velocity.alpha_bar, table)
    assert torch.equal(network.time_embed[0].weight, weight)


@torch.inference_mode()
def test_a_network_that_gives_v_returns_noise_like_one_that_gives_eps():
    network, t = velocity_unet(), torch.tensor([3, 800])
    x = torch.randn(2, 4, 4, 8, 8)
    torch.nn.init.zeros_(network.out[2].weight)
    torch.nn.init.zeros_(network.out[2].bias)
    noise = (1 - network.velocity.alpha_bar[t]).sqrt()
    assert_close(network(x, t, torch.zeros(2, 4)), noise[:, None, None, None, None] * x)  # v = 0
