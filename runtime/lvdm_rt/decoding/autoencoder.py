"""The encoder and decoder graphs, called one window at a time.

One window per call: the decoder is the largest user of memory, and so no batch can change how
its kernels round.
"""

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import DeviceMemoryError, NumericsError, OptionsError, quoted
from lvdm_rt.checks import check_range
from lvdm_rt.decoding.windows import WindowedDecoder, encode_windows
from lvdm_rt.model import Model

Frames = NDArray[np.uint8]
Latents = NDArray[np.float32]


class Autoencoder:
    """Frames (f, h, w, 3) to latents (c, t, h', w') and back, at any length."""

    def __init__(self, model: Model) -> None:
        self._run = model.run
        self._model = model.facts
        self.overlap = model.manifest.overlap  # of neighbouring windows, unless asked otherwise

    def encode(self, frames: Frames, overlap: int | None = None) -> Latents:
        """Encode frames uint8 (f, h, w, 3) of any number into latents (c, ceil(f / per), h', w').

        Raises OptionsError for other frames than the model's, PlanError without an encoder,
        NumericsError if the latents are not finite.
        """
        check_frames(frames, self._model.frame_size)
        latents = encode_windows(
            frames,
            self._encode_window,
            self._model.decode_window,
            self._checked(overlap),
            self._model.frames_per_latent,
        )
        if not np.isfinite(latents).all():
            raise NumericsError("the encoder returned NaN or infinity; check the bundle")
        return latents

    def decode(
        self, latents: Latents | Iterable[Latents], overlap: int | None = None
    ) -> Generator[Frames, None, None]:
        """Yield the frames of latents (c, t, h', w'), given whole or in pieces that follow.

        Raises OptionsError for other latents than the model's, NumericsError for NaN or infinity in
        them, PlanError without a decoder.
        """
        decoder = self.decoder(self._checked(overlap))
        whole = isinstance(latents, np.ndarray) or not isinstance(latents, Iterable)
        pieces: Iterable[Any] = [latents] if whole else latents
        for piece in pieces:
            self._check_latents(piece)
            yield from decoder.push(piece)
        yield from (frames for frames in decoder.finish() if len(frames))

    def decode_window(self, latents: Latents) -> Frames:
        """Decode latents (c, window, h', w') into frames (window * per latent, h, w, 3).

        Raises SessionError, NumericsError.
        """
        feeds = {"latents": np.ascontiguousarray(latents[None])}
        try:
            out = self._run("decoder", feeds)
        except DeviceMemoryError as err:
            raise _does_not_fit("decoded", err) from err
        if not np.isfinite(out.get("mean", 0.0)).all():  # older graphs do not tell
            raise NumericsError(
                "the decoder returned NaN or infinity; check the bundle with lvdm-export verify, "
                "or use its fp32 graphs"
            )
        frames: Frames = out["frames"][0]
        return frames

    def decoder(self, overlap: int) -> WindowedDecoder:
        """Return a decoder for one video."""
        model = self._model
        return WindowedDecoder(
            self.decode_window, model.decode_window, overlap, model.frames_per_latent
        )

    def _checked(self, overlap: int | None) -> int:
        """Return the overlap of windows. Raises OptionsError for more than half a window."""
        if overlap is None:
            return self.overlap
        check_range("overlap", overlap, 0, self._model.decode_window // 2)
        return overlap

    def _check_latents(self, latents: Latents) -> None:
        facts = self._model.latent
        # neither of which a list has
        shape: tuple[int, ...] = getattr(latents, "shape", ())
        dtype = getattr(latents, "dtype", None)
        fits = len(shape) == 4 and (shape[0], *shape[2:]) == (facts.channels, *facts.size)
        if dtype != np.float32 or not fits:
            got = type(latents).__name__ if dtype is None else f"{dtype} {shape}"
            raise OptionsError(
                f"got latents {got}, expected float32 ({facts.channels}, t, {facts.size[0]}, "
                f"{facts.size[1]})"
            )
        if not np.isfinite(latents).all():
            raise NumericsError("got latents with NaN or infinity; decode what the model sampled")

    def _encode_window(self, frames: Frames) -> Latents:
        try:
            out = self._run("encoder", {"frames": np.ascontiguousarray(frames[None])})
        except DeviceMemoryError as err:
            raise _does_not_fit("encoded", err) from err
        latents: Latents = out["latents"][0]
        return latents


def check_frames(frames: Frames, size: tuple[int, int]) -> None:
    """Raise OptionsError unless frames are uint8 (f, h, w, 3) of the model's size, f ≥ 1."""
    # neither of which a list or the name of a file has
    shape, dtype = getattr(frames, "shape", ()), getattr(frames, "dtype", None)
    got = quoted(frames) if dtype is None else f"{dtype} {shape}"
    if dtype != np.uint8 or len(shape) != 4 or shape[1:] != (*size, 3):
        raise OptionsError(
            f"got frames {got}, expected uint8 (f, {size[0]}, {size[1]}, 3); crop and resize "
            "them first, as lvdm_rt.video.read_frames does"
        )
    if len(frames) == 0:
        raise OptionsError(f"got frames {got}, expected at least one frame")


def _does_not_fit(what: str, err: DeviceMemoryError) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"out of memory while one window was {what} ({err}); close other programs, lower the "
        "batch size or use another backend"
    )
