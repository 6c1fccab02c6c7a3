"""What trainers and compilers put around the official keys, taken off again.

Knows names only; nothing of files or tensors.
"""

import re
from collections import Counter
from collections.abc import Collection

DENOISER = "model.diffusion_model."
EMA = "model_ema."
AUTOENCODER = "first_stage_model."
AUTOENCODER_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")

_OFFICIAL = (DENOISER, EMA, AUTOENCODER, *AUTOENCODER_PARTS)
_OUTER = "model."  # begins the official names of the denoiser as well
# of DDP and DeepSpeed, torch.compile, Lightning: around the whole model or a part of it
_WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod|_forward_module)\.")
_JOINED = re.compile("_orig_mod|_forward_module|module")  # where averaging dropped the dots


def unwrap(keys: Collection[str]) -> dict[str, str]:
    """Map names without any wrapper to the keys; those that would become one name stay as they are.

    `module.model.diffusion_model._orig_mod.out.0.bias` is `model.diffusion_model.out.0.bias`.
    """
    names = {key: _bare(key) for key in keys}
    while names and all(map(_wrapped, names.values())):
        names = {key: _bare(name.removeprefix(_OUTER)) for key, name in names.items()}
    known = Counter(names.values())
    return {name if known[name] == 1 else key: key for key, name in names.items()}


def is_official(names: Collection[str]) -> bool:
    """Tell whether names are those of the authors' diffusion models, not of one bare network."""
    return any(name.startswith((DENOISER, EMA, AUTOENCODER)) for name in names)


def _bare(key: str) -> str:
    name = _WRAPPERS.sub("", key)
    return EMA + _JOINED.sub("", name.removeprefix(EMA)) if name.startswith(EMA) else name


def _wrapped(name: str) -> bool:
    return name.startswith(_OUTER) and not name.startswith(_OFFICIAL)
