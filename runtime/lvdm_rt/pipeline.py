"""From options to frames: sampling and decoding side by side, in bounded memory.

    keyframes → infill → (queue) → decode windows → blend → (queue) → the caller

The two halves run in threads of their own; closing the iterator stops and joins them.
"""

import weakref
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import Bundle, load_bundle
from lvdm_engines.errors import OptionsError
from lvdm_engines.manifest import Manifest
from lvdm_engines.opening import open_sessions
from lvdm_engines.session import Session
from lvdm_rt.background import RunStream, Stop, prefetch
from lvdm_rt.decoding.autoencoder import Autoencoder
from lvdm_rt.decoding.frames import Chunk
from lvdm_rt.long.sampling import SamplingRun, sample
from lvdm_rt.long.videos import LatentChunk
from lvdm_rt.long.workdir import belongs_to
from lvdm_rt.model import Model, OnCall
from lvdm_rt.options import GenerateOptions, Settings, resolve
from lvdm_rt.progress import Counter, Preview, PreviewCallback, Progress, ProgressCallback
from lvdm_rt.request import Asked, Folders, Request, needed_frames, prepare
from lvdm_rt.running import Making, Work, check_texts, films_of, make_here, sampling_run, work_of
from lvdm_rt.text.encoder import TextEncoder
from lvdm_rt.text.tokenizer import load_tokenizer

__all__ = ["Chunk", "LatentChunk", "Pipeline", "Preview", "Progress", "ProgressCallback"]

Frames = NDArray[np.uint8]
Latents = NDArray[np.float32]

T = TypeVar("T")

FRAMES_AHEAD = 2  # decoded windows that may wait for the caller


class Pipeline:
    """A model that is ready to generate; a context manager.

    `Pipeline.open` opens a bundle and closes its sessions in the end; sessions that are passed in
    stay the caller's. Several iterators may run at once if the sessions allow it.
    """

    def __init__(
        self,
        manifest: Manifest,
        sessions: Mapping[str, Session],
        tokenizer: Any = None,
        on_call: OnCall | None = None,
        making: Making = make_here,
    ) -> None:
        """Take a model's sessions by graph name, and a `tokenizers.Tokenizer` if it reads text.

        `on_call` is told of each network call: its graph and how many seconds it took. `making`
        samples and decodes, unless told otherwise with these sessions.
        """
        self._making = making
        self._model = Model(manifest, dict(sessions), on_call=on_call)
        self._text = None if tokenizer is None else TextEncoder(self._model, tokenizer)
        self._owned = ExitStack()
        self._streams: weakref.WeakSet[RunStream[Any]] = weakref.WeakSet()
        # Also when the interpreter exits: it would kill the threads inside a network call.
        weakref.finalize(self, _close_all, self._streams)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle = "sky-tiny",
        backend: str = "auto",
        options: SessionOptions | None = None,
        on_call: OnCall | None = None,
    ) -> Self:
        """Open a bundle, one that is loaded or a directory or the name of a built-in one.

        `options` say with how many threads, on which GPU, and with which plans.

        Raises BundleError, BackendError.
        """
        found = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        tokenizer = load_tokenizer(found) if found.manifest.tokenizer else None
        sessions = open_sessions(found, list(found.manifest.graphs), backend, options)
        pipeline = cls(found.manifest, sessions, tokenizer, on_call)
        for session in sessions.values():
            pipeline._owned.callback(session.close)
        return pipeline

    @property
    def manifest(self) -> Manifest:
        """What the model says about itself."""
        return self._model.manifest

    @property
    def model(self) -> Model:
        """Its open sessions, which it closes in the end, and what their graphs are."""
        return self._model

    @property
    def text(self) -> TextEncoder | None:
        """What makes contexts of prompts, None for a model that reads none."""
        return self._text

    @property
    def backend(self) -> str:
        """The backend that runs the graphs; each graph with its own where they differ."""
        return self._model.backend

    @property
    def arithmetic(self) -> str:
        """The backends and, where they have a choice, precisions on which the last bits depend."""
        return self._model.arithmetic

    def close(self) -> None:
        """Stop iterators that still run and close the sessions that `open` opened."""
        _close_all(self._streams)
        self._model.times.tell()
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self, options: GenerateOptions | Settings) -> Settings:
        """Return the options with the model's own values filled in. Raises OptionsError.

        Wherever options are taken, these settings are as well.
        """
        return resolve(options, self.manifest)

    def condition_frames(self, options: GenerateOptions | Settings) -> int:
        """Return how many of the last frames of a condition video can matter."""
        return needed_frames(self._model.facts, self.settings(options))

    def stream(
        self,
        options: GenerateOptions | Settings,
        *,
        condition: Frames | None = None,
        work: str | Path | None = None,
        resume: bool = False,
        progress: ProgressCallback | None = None,
    ) -> RunStream[Frames]:
        """Yield the frames of one video, uint8 (f, h, w, 3), in order, while it is sampled.

        Closing it, from any thread, cancels the run. For several videos, the arguments and what is
        raised see `stream_videos`.
        """
        if options.videos != 1:
            raise OptionsError(f"got videos {options.videos}, expected 1; use stream_videos")
        request = self._prepared(options, condition, work, resume=resume)
        counter = request.begin(progress)
        return self._watched(_frames_only(self._stream(request, counter)), counter.stop)

    def stream_videos(
        self,
        options: Asked,
        *,
        condition: Frames | None = None,
        work: Folders = None,
        resume: bool = False,
        restart: bool = False,
        progress: ProgressCallback | None = None,
        preview: PreviewCallback | None = None,
    ) -> RunStream[Chunk]:
        """Yield chunks of several videos; up to `batch_size` of them take turns.

        Of a sequence of options each is one video, by its place there; they may differ in seed,
        first_video and prompts, and each comes out as if it were alone.
        `condition` holds frames uint8 (f, h, w, 3) that each video continues; only new frames are
        yielded. `work` is a directory for finished latents: with `resume` what an interrupted run
        left there is not sampled again, and frames start from the first one all the same; with
        `restart` it is thrown away. A sequence of options may have a directory for each video, with
        which it goes on in whatever company.
        `progress` is called from the threads that work, one call at a time, and `preview` after
        each network call with coarse pictures of its clips, where the bundle has a map for them.

        Raises OptionsError and PlanError at once; while iterating also WorkError, NumericsError,
        SessionError and whatever `progress` and `preview` raise.
        """
        request = self._prepared(options, condition, work, resume=resume, restart=restart)
        counter = request.begin(progress, preview)
        return self._watched(self._stream(request, counter), counter.stop)

    def sample_latents(
        self,
        options: GenerateOptions | Settings,
        *,
        condition: Frames | None = None,
        work: str | Path | None = None,
        resume: bool = False,
        progress: ProgressCallback | None = None,
    ) -> RunStream[LatentChunk]:
        """Yield latents instead of frames, in the calling thread; see `stream_videos`.

        A video ends with the latents of a whole decode window, which can be more than `frames`.
        """
        request = self._prepared(options, condition, work, resume=resume)
        counter = request.begin(progress)
        return self._watched(self._latents(request, counter), counter.stop)

    def encode(self, frames: Frames, overlap: int | None = None) -> Latents:
        """Encode frames uint8 (f, h, w, 3) into latents float32 (c, ceil(f / per latent), h', w').

        Long videos are encoded in windows that share `overlap` latents, blended.

        Raises OptionsError for frames of another size, PlanError without an encoder.
        """
        return Autoencoder(self._model).encode(frames, overlap)

    def decode(
        self, latents: Latents | Iterable[Latents], overlap: int | None = None
    ) -> RunStream[Frames]:
        """Stream the frames of latents (c, t, h', w'), or of an iterable of consecutive pieces.

        Raises OptionsError for latents of another shape, PlanError without a decoder.
        """
        stop = Stop()
        frames = Autoencoder(self._model.until(stop)).decode(latents, overlap)
        return self._watched(self._holding(frames), stop)

    def _prepared(
        self,
        options: Asked,
        condition: Frames | None,
        work: Folders,
        *,
        resume: bool,
        restart: bool = False,
    ) -> Request:
        request = prepare(self._model, options, condition, work, resume=resume, restart=restart)
        check_texts(request, self._model, self._text)
        return request

    def _run(self, request: Request, counter: Counter, work: Work | None) -> SamplingRun:
        return sampling_run(request, self._model.until(counter.stop), self._text, counter, work)

    def _latents(self, request: Request, counter: Counter) -> Generator[LatentChunk, None, None]:
        with ExitStack() as stack:
            yield from sample(self._run(request, counter, work_of(request, stack)))

    def owns(self, work: Path, options: Asked, condition: Frames | None = None) -> bool:
        """Tell whether a work directory holds clips of this request, and not of another.

        Raises OptionsError, PlanError.
        """
        request = self._prepared(options, condition, work, resume=True)
        return belongs_to(work, request.identity)

    def _stream(self, request: Request, counter: Counter) -> Generator[Chunk, None, None]:
        with ExitStack() as stack:
            chunks = self._decoded(request, counter, work_of(request, stack))
            yield from prefetch(chunks, FRAMES_AHEAD, counter.stop)

    def _decoded(
        self, request: Request, counter: Counter, work: Work | None
    ) -> Generator[Chunk, None, None]:
        """Encode, sample and decode; runs in a thread, so that the reader's can be interrupted."""
        run = self._run(request, counter, work)
        films = films_of(request, run, self._model.until(counter.stop))
        with closing(self._making(request, run, films, counter.stop)) as chunks:
            for chunk in chunks:
                counter.decoded(len(chunk.frames))
                yield chunk

    def _holding(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """Keep this pipeline, which closes what it has opened, while somebody reads."""
        with closing(items):
            yield from items

    def _watched(self, items: Generator[T, None, None], stop: Stop) -> RunStream[T]:
        stream = RunStream(items, stop)
        self._streams.add(stream)
        return stream


def _close_all(streams: Iterable[RunStream[Any]]) -> None:
    for stream in list(streams):
        stream.close()


def _frames_only(chunks: Generator[Chunk, None, None]) -> Generator[Frames, None, None]:
    with closing(chunks):
        for chunk in chunks:
            yield chunk.frames
