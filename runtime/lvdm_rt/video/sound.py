"""The sound of a given video on its way into another file, as far as its frames are kept.

Packets are copied where the new container takes their codec, else encoded anew.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias, cast

from av.audio.resampler import AudioResampler

from lvdm_rt.video.film import open_film

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

    AudioPacket: TypeAlias = Packet[AudioStream]

_COPIED = {"mp4": {"aac", "mp3", "ac3", "alac"}, "webm": {"opus", "vorbis"}}
_ENCODERS = {"mp4": ("aac", 48000), "webm": ("libopus", 48000)}


class Sound:
    """The first audio stream of `path`, its first `seconds`, for a container of format `kind`."""

    def __init__(self, path: Path, seconds: Fraction, target: OutputContainer, kind: str) -> None:
        """Add a stream to `target` if there is sound at all. Raises av.FFmpegError, OSError."""
        self._seconds = seconds
        self._source = open_film(path)
        self._packets: Iterator[AudioPacket] = iter(())
        self._next: AudioPacket | None = None
        streams = self._source.streams
        if not streams.audio:
            return
        given = streams.audio[0]
        video = streams.video[0]
        # the reader counts time from the first picture
        self._begin = Fraction((video.start_time or 0) * (video.time_base or 1))
        if given.codec_context.name in _COPIED[kind]:
            copy = target.add_stream_from_template(given)
            self._packets = self._copied(given, copy)
        else:
            codec, rate = _ENCODERS[kind]
            made = cast("AudioStream", target.add_stream(codec, rate=rate))
            self._packets = self._encoded(given, made)

    def until(self, time: Fraction) -> Iterator[AudioPacket]:
        """Yield the packets that start before `time`, in order; each once."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            packet = self._next
            if packet is None or _start(packet) >= time:
                return
            self._next = None
            yield packet

    def close(self) -> None:
        """Close the file that the sound comes from."""
        self._source.close()

    def _copied(self, given: AudioStream, copy: AudioStream) -> Iterator[AudioPacket]:
        for packet in self._source.demux(given):
            if packet.pts is None or packet.time_base is None:
                continue  # the last one only says that there are no more
            start = packet.pts * packet.time_base - self._begin
            if start >= self._seconds:
                return
            shift = round(self._begin / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts
            if start >= 0:
                packet.stream = copy
                yield packet

    def _encoded(self, given: AudioStream, made: AudioStream) -> Iterator[AudioPacket]:
        resampler = AudioResampler(format=made.format, layout=made.layout, rate=made.rate)
        samples = 0
        for frame in self._source.decode(given):
            if frame.pts is None or frame.time_base is None:
                continue
            start = frame.pts * frame.time_base - self._begin
            if start >= self._seconds:
                break
            if start < 0:
                continue
            samples = max(samples, round(start * made.rate))  # silence before it and gaps stay
            for part in resampler.resample(frame):
                part.pts, part.time_base = samples, Fraction(1, made.rate)
                samples += part.samples
                yield from made.encode(part)
        for part in resampler.resample(None):
            part.pts, part.time_base = samples, Fraction(1, made.rate)
            samples += part.samples
            yield from made.encode(part)
        yield from made.encode(None)


def _start(packet: AudioPacket) -> Fraction:
    if packet.pts is None or packet.time_base is None:
        return Fraction(0)
    return packet.pts * packet.time_base
