import numpy as np
import pytest

from lvdm_rt.decoding.windows import WindowedDecoder, encode_windows, window_starts

PER_LATENT, WINDOW = 4, 4


def latents(count, start=0):
    """Latents whose value is their position: (1, t, 1, 1)."""
    return np.arange(start, start + count, dtype=np.float32).reshape(1, count, 1, 1)


def exact_decode(z):
    """Frame values are twice the latent's, whatever the window: any blend must reproduce them."""
    assert z.shape[1] == WINDOW
    values = np.repeat(2 * z[0, :, 0, 0], PER_LATENT).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (len(values), 2, 2, 3)).copy()


def decode_all(z, overlap, pieces=(1,), decode=exact_decode):
    decoder = WindowedDecoder(decode, WINDOW, overlap, PER_LATENT)
    out, at, turn = [], 0, 0
    while at < z.shape[1]:
        size = pieces[turn % len(pieces)]
        out.extend(decoder.push(z[:, at : at + size]))
        at, turn = at + size, turn + 1
    out.extend(decoder.finish())
    return np.concatenate(out)


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16])
@pytest.mark.parametrize("pieces", [(1,), (5, 4), (16,)])
def test_every_latent_becomes_its_own_frames_at_any_length(count, overlap, pieces):
    frames = decode_all(latents(count), overlap, pieces)
    expected = np.repeat(2 * np.arange(count), PER_LATENT)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], expected)


def test_shared_frames_fade_from_one_window_into_the_next():
    calls = iter([0, 100])

    def decode(z):
        return np.full((WINDOW * PER_LATENT, 1, 1, 3), next(calls), np.uint8)

    frames = decode_all(latents(7), 1, decode=decode)[:, 0, 0, 0]
    np.testing.assert_array_equal(frames[:12], 0)
    np.testing.assert_array_equal(frames[12:16], [20, 40, 60, 80])
    np.testing.assert_array_equal(frames[16:], 100)


def test_frames_leave_the_decoder_as_soon_as_no_later_window_changes_them():
    decoder = WindowedDecoder(exact_decode, WINDOW, 1, PER_LATENT)
    first = list(decoder.push(latents(4)))
    assert [len(f) for f in first] == [12]
    assert [len(f) for f in decoder.push(latents(2, 4))] == []
    assert [len(f) for f in decoder.push(latents(1, 6))] == [12]


@pytest.mark.parametrize(
    ("length", "starts"), [(4, [0]), (5, [0, 1]), (7, [0, 3]), (8, [0, 3, 4]), (10, [0, 3, 6])]
)
def test_windows_cover_everything_and_end_with_the_video(length, starts):
    assert window_starts(length, 4, 1) == starts


def exact_encode(frames):
    assert len(frames) == WINDOW * PER_LATENT
    return frames[::PER_LATENT, 0, 0, :1].astype(np.float32).T[:, :, None, None]


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("count", [4, 5, 7, 8, 11])
def test_encoding_in_windows_equals_encoding_each_latent(count, overlap):
    values = np.repeat(np.arange(count), PER_LATENT).astype(np.uint8)
    frames = np.broadcast_to(values[:, None, None, None], (len(values), 2, 2, 3))
    out = encode_windows(frames, exact_encode, WINDOW, overlap, PER_LATENT)
    np.testing.assert_array_equal(out[0, :, 0, 0], np.arange(count))


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (3, 1), (5, 2), (15, 4)])
def test_a_few_frames_are_continued_into_the_past_not_into_the_future(count, wanted):
    frames = np.arange(10, 10 + count, dtype=np.uint8)[:, None, None, None]
    seen = []

    def encode(window):
        seen.append(window[:, 0, 0, 0])
        return exact_encode(window)

    out = encode_windows(frames * np.ones((1, 2, 2, 3), np.uint8), encode, WINDOW, 1, PER_LATENT)
    assert out.shape == (1, wanted, 1, 1)
    np.testing.assert_array_equal(seen[0][-count:], np.arange(10, 10 + count))
    assert set(seen[0][:-count]) <= {10}
