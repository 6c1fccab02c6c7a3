"""What latents roughly look like, without a decoder: a colour for each, by the model's linear map.

Good for pictures while a video is sampled; knows nothing of sampling or of who looks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import PlanError
from lvdm_engines.manifest import Manifest
from lvdm_engines.preview_map import PreviewMap
from lvdm_rt.diffusion.noise import Site
from lvdm_rt.progress import Estimated, Preview, PreviewCallback

Pictures = NDArray[np.uint8]
Latents = NDArray[np.float32]


def colours(latents: Latents, facts: PreviewMap) -> Pictures:
    """Return latents (…, c, t, h, w) as pictures uint8 (…, t, h, w, 3), a pixel for each place."""
    weights = np.array(facts.weights, np.float32)  # (c, 3)
    rgb = np.moveaxis(latents, -4, -1) @ weights + np.array(facts.bias, np.float32)
    pictures: Pictures = np.clip(np.rint(np.nan_to_num(rgb)), 0, 255).astype(np.uint8)
    return pictures


def check_preview(manifest: Manifest) -> PreviewMap:
    """Return the model's map. Raises PlanError if it has none."""
    if manifest.preview is None:
        raise PlanError(
            f"{manifest.name} has no map from latents to colours in its manifest, which a preview "
            "needs; export the bundle again, or leave the preview out"
        )
    return manifest.preview


def previewing(manifest: Manifest, show: PreviewCallback) -> Estimated:
    """Return what takes the sites of a batch and its estimated latents (b, c, t, h, w) to `show`.

    Raises PlanError for a model without a map.
    """
    facts = check_preview(manifest)

    def estimated(sites: Sequence[Site], latents: Latents) -> None:
        pictures = colours(latents, facts)
        show(
            [
                Preview(site.video, str(site.stage), site.clip, shown)
                for site, shown in zip(sites, pictures, strict=True)
            ]
        )

    return estimated
