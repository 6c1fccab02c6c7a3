import io
from fractions import Fraction

import av
import numpy as np
import pytest

from lvdm_engines.errors import VideoError
from lvdm_rt.video import VideoSpec, open_writer
from lvdm_rt.video.fragmented import FragmentedFilm, codec_name, fragments

FPS = Fraction(8)


def clouds(frames, size=(32, 48)):
    """Smooth colours that move, which a codec keeps within a few levels."""
    f, y, x = np.meshgrid(np.arange(frames), *map(np.arange, size), indexing="ij")
    waves = [np.sin((x + f) / 17), np.cos((y - f) / 15), np.sin((x + y) / 21 + f / 9)]
    return np.clip(128 + 90 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def decoded(data):
    """The frames of a film, their times in frames, and which of them are whole pictures."""
    with av.open(io.BytesIO(data)) as film:
        frames = list(film.decode(video=0))
    pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return pixels, [float(frame.time * FPS) for frame in frames], [f.key_frame for f in frames]


def boxes(data):
    """The names of the boxes of a file, outermost ones only."""
    names, at = [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4])
    assert at == len(data)
    return names


def parts_of(frames, chunk=8):
    film = FragmentedFilm(frames.shape[1:3], FPS)
    written = [film.write(frames[i : i + chunk]) for i in range(0, len(frames), chunk)]
    return [film.start, *written, film.close()], film


def test_what_was_written_comes_out_frame_by_frame():
    frames = clouds(21)
    pixels, times, _ = decoded(b"".join(parts_of(frames)[0]))
    assert times == list(range(21))
    assert np.abs(pixels.astype(int) - frames).mean() < 3  # of yuv420p and crf 18


def test_each_chunk_can_be_shown_before_the_next_but_for_its_last_frame():
    parts, _ = parts_of(clouds(24))
    assert boxes(parts[0]) == ["ftyp", "moov"]
    for count, seen in ((2, 7), (3, 15), (4, 23), (5, 24)):
        assert len(decoded(b"".join(parts[:count]))[0]) == seen
    for part in parts[1:]:
        assert set(boxes(part)) == {"moof", "mdat"}


def test_every_fragment_begins_with_a_whole_picture():
    parts, _ = parts_of(clouds(16))
    assert [i for i, whole in enumerate(decoded(b"".join(parts))[2]) if whole] == [0, 7, 15]
    alone = parts[0] + parts[2]  # as a player that has thrown the first one away
    assert decoded(alone)[1] == list(range(7, 15))


@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_of_any_length_are_taken(chunk):
    assert len(decoded(b"".join(parts_of(clouds(6), chunk)[0]))[0]) == 6


def test_an_odd_side_gets_its_last_row_or_column_twice():
    frames = clouds(4, (33, 47))
    pixels = decoded(b"".join(parts_of(frames)[0]))[0].astype(int)
    assert pixels.shape == (4, 34, 48, 3)
    assert np.abs(pixels[:, :33, :47] - frames).mean() < 3
    assert np.abs(pixels[:, 33] - pixels[:, 32]).mean() < 3


def test_its_codec_is_the_one_of_the_stream():
    parts, film = parts_of(clouds(3))
    assert film.codec == codec_name(parts[0])
    with av.open(io.BytesIO(b"".join(parts))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert film.codec == f"avc1.{bytes(stream.codec_context.extradata[1:4]).hex().upper()}"
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)


def test_bytes_that_are_no_film_have_no_codec():
    with pytest.raises(VideoError, match="expected one of ours"):
        codec_name(b"\0" * 64)


def test_a_finished_file_comes_in_fragments_with_its_own_pictures(tmp_path):
    frames = clouds(40)
    path = tmp_path / "sky.mp4"
    spec = VideoSpec(frames=40, size=frames.shape[1:3], fps=FPS, settings="{}")
    with open_writer(str(path), spec) as writer:
        writer.write(frames)
    parts = list(fragments(path))
    assert boxes(parts[0]) == ["ftyp", "moov"]
    pixels, times, _ = decoded(b"".join(parts))
    assert [time - times[0] for time in times] == list(range(40))  # B-frames and all
    run = parts[1].index(b"trun")
    assert parts[1][run + 4] == 1  # offsets may be negative, so that browsers begin at 0
    assert b"elst" not in parts[0]  # and need no list of edits
    np.testing.assert_array_equal(pixels, decoded(path.read_bytes())[0])


def test_a_file_that_is_none_is_refused_in_one_line(tmp_path):
    (tmp_path / "sky.mp4").write_bytes(b"no film")
    with pytest.raises(VideoError, match=r"cannot read .*sky\.mp4"):
        list(fragments(tmp_path / "sky.mp4"))
