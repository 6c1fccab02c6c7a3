"""What OpenVINO computes in: bfloat16 where that is faster here, which is tried once and kept.

A processor can have instructions for bfloat16 and multiply float32 faster all the same: those of
AVX-512 without AMX are slow on some. Knows the library; nothing of bundles.
"""

import hashlib
import logging
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import CpuPrecision
from lvdm_engines.backends.ov.library import core, load, native_errors, session_error, version
from lvdm_engines.backends.processor import multiplies_bf16, processor
from lvdm_engines.backends.trial import compare_once
from lvdm_engines.errors import BackendError, SessionError
from lvdm_engines.manifest import TensorSpec

_log = logging.getLogger(__name__)

_WORTH = 1.2  # times as fast, for float32 is the more exact
_LAYERS, _SHAPE = 3, (1, 32, 4, 24, 24)  # of a decoder or a denoiser


def choose_precision(asked: CpuPrecision | None) -> CpuPrecision:
    """Return what to compute in: bf16 where it is faster, unless asked otherwise.

    Raises BackendError for bf16 on a processor that cannot.
    """
    able = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if asked == "bf16" and not able:
        raise BackendError(
            "got precision bf16, which this processor cannot compute in; leave it out, or give f32"
        )
    return asked or ("bf16" if able and multiplies_bf16() and bf16_is_faster() else "f32")


@cache
def bf16_is_faster() -> bool:
    """Tell whether a few convolutions take less time in bf16 than in f32."""
    name, instructions = processor()
    decides = (version(), name, sorted(instructions), _LAYERS, _SHAPE)
    digest = hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:32]
    openers = (partial(_Convolutions, "bf16"), partial(_Convolutions, "f32"))
    try:
        found = compare_once("openvino in bf16", f"trials/{digest}.json", *openers, {"x": _SHAPE})
    except SessionError as err:
        _log.warning("openvino computes in f32, for bf16 cannot be tried: %s", err)
        return False
    return found.other >= _WORTH * found.tried


class _Convolutions:
    """A session of a network that has what takes most of the time of ours."""

    name, backend = "convolutions", "openvino"
    inputs = (TensorSpec("x", "float32", _SHAPE),)
    outputs = (TensorSpec("y", "float32", _SHAPE),)

    def __init__(self, precision: CpuPrecision) -> None:
        """Compile it. Raises SessionError."""
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": 1,  # which wait for no other while something else runs
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = core().compile_model(_network(), "CPU", settings)
            self._request = compiled.create_infer_request()
        except native_errors() as err:
            raise session_error(self.name, "open", err) from err

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`."""
        try:
            return {"y": np.array(self._request.infer(dict(feeds))[0])}
        except native_errors() as err:
            raise session_error(self.name, "run", err) from err

    def close(self) -> None:
        """See `Session.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _network() -> Any:
    library = load()
    opset, channels = library.opset13, _SHAPE[1]
    x = y = opset.parameter(list(_SHAPE), np.float32, name="x")
    y.output(0).tensor.set_names({"x"})
    rng = np.random.default_rng(0)
    for _ in range(_LAYERS):
        weights = rng.standard_normal((channels, channels, 3, 3, 3), np.float32)
        kernel = opset.constant(0.02 * weights)
        y = opset.relu(opset.convolution(y, kernel, [1] * 3, [1] * 3, [1] * 3, [1] * 3))
    return library.Model([y], [x], "convolutions")
