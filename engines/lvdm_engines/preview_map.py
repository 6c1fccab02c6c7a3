"""What latents roughly look like, without a decoder: a colour for each of them, by a linear map.

Knows the numbers as the manifest keeps them; nothing of arrays, and not how they are fitted.
"""

import math

import msgspec

Colour = tuple[float, float, float]  # red, green, blue, in levels of 0 to 255


class PreviewMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mean colour of the pixels of one latent: bias + the sum of its channels × weights."""

    bias: Colour
    weights: tuple[Colour, ...]  # one for each channel

    def __post_init__(self) -> None:
        for colour in (self.bias, *self.weights):
            if not all(map(math.isfinite, colour)):
                raise ValueError(f"got {list(colour)}, expected finite levels of red, green, blue")
