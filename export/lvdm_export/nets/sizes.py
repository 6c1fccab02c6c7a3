"""How large the sizes of networks may be; no model is larger, and one that is cannot be built.

A config is checked against these wherever it is read: from YAML, from a model.json, for training.
"""

from typing import Annotated

from msgspec import Meta

Width = Annotated[int, Meta(ge=1, le=1 << 16)]  # channels, groups of them, embeddings
Frames = Annotated[int, Meta(ge=1, le=4096)]
Blocks = Annotated[int, Meta(ge=1, le=8)]
Heads = Annotated[int, Meta(ge=-1, le=1 << 16)]  # -1: told by another size
Factor = Annotated[int, Meta(ge=1, le=256)]
Downsample = tuple[Factor, Factor, Factor]
Levels = Annotated[tuple[Factor, ...], Meta(min_length=1, max_length=8)]
Sides = Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 14)], ...], Meta(max_length=64)]
Steps = Annotated[int, Meta(ge=1, le=1 << 20)]

MOST_PARAMETERS = 1 << 33  # in one network, whatever its sizes are each
