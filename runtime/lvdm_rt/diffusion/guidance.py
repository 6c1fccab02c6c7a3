"""A denoiser graph as eps(x, t), guided by its own predictions with less of the condition.

With e(f, t) for given frames f and a text t, and 0 for none of either:

    eps = e(0, 0) + (1 + w_f) (e(f, 0) - e(0, 0)) + (1 + w_t) (e(f, t) - e(f, 0))
        = (1 + w_t) e(f, t) + (w_f - w_t) e(f, 0) - w_f e(0, 0)

(Brooks et al. 2023, eq. 3, with weights that are 0 where they do nothing). Of one condition it is
(1 + w) e_c - w e_u (Ho and Salimans 2022, eq. 6).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Eps = Callable[[Array, int], Array]
Call = Callable[[Mapping[str, NDArray[np.generic]]], Array]
"""Run one batch of feeds through a denoiser and return its `eps`."""


class TextCondition(NamedTuple):
    """The text of a batch: what each row is told, what without a text, and the weight w_t."""

    context: Array  # (b, l, d)
    unprompted: Array  # (l, d)
    weight: float


def guided(
    call: Call,
    mask: Array,
    level: int,
    weight: float,
    text: TextCondition | None = None,
    interval: tuple[int, int] | None = None,
    stride: int = 1,
) -> Eps:
    """Return eps(x, t) as above, the branches of all rows in one batch.

    `mask` (b, t) says what is given, `weight` is w_f; `level` is the noise level s of the given
    frames, -1 for unperturbed ones. A branch is computed for those rows only in which it counts:
    frames must be given, a text must differ from none, and the factor must not be 0. All branches
    see the same x, given frames included; without frames the mask is empty and there is no level.
    At timesteps outside `interval` (lowest, highest) only e(f, t) is computed (Kynkäänniemi et al.
    2024). `stride` is told to networks that know how far apart the latents of a clip lie.
    """
    fixed = call, mask, level, stride
    everywhere = _weighted(*fixed, weight, text)
    if interval is None:
        return everywhere
    low, high = interval
    plain = _weighted(*fixed, 0.0, text and text._replace(weight=0.0))
    return lambda x, t: (everywhere if low <= t <= high else plain)(x, t)


def _weighted(
    call: Call, mask: Array, level: int, stride: int, weight: float, text: TextCondition | None
) -> Eps:
    w_f = np.where(mask.any(axis=1), weight, 0.0)  # (b,)
    w_t = w_f  # of rows without a text, where e(f, t) is e(f, 0)
    if text is not None:
        prompted = (text.context != text.unprompted).any(axis=(1, 2))
        w_t = np.where(prompted, text.weight, w_f)
    b, textless, bare = len(mask), np.flatnonzero(w_f != w_t), np.flatnonzero(w_f)
    rows = np.concatenate([np.arange(b), textless, bare])
    masks = mask[rows]
    masks[b + len(textless) :] = 0
    fixed: dict[str, NDArray[np.generic]] = {
        "mask": masks,
        "noise_level": np.where(masks.any(axis=1), level, -1).astype(np.int64),
        "stride": np.full(len(rows), stride, np.int64),
    }
    if text is not None:
        fixed["context"] = text.context[rows]
        fixed["context"][b:] = text.unprompted
    factors = np.concatenate([1 + w_t, (w_f - w_t)[textless], -w_f[bare]])
    factors = factors.astype(np.float32)[:, None, None, None, None]

    def eps(x: Array, t: int) -> Array:
        alone = len(rows) == b
        timestep = np.full(len(rows), t, np.int64)
        out = call({"latents": x if alone else x[rows], "timestep": timestep, **fixed})
        if alone:
            return out
        out = factors * out
        e: Array = out[:b]
        e[textless] += out[b : b + len(textless)]
        e[bare] += out[b + len(textless) :]
        return e

    return eps
