"""Text encoder of CLIP (Radford et al., arXiv 2103.00020): tokens to what denoisers read.

Parameter names are those of Hugging Face's CLIPTextModel below `text_model`, in which the authors'
checkpoints keep it. Knows nothing of words: the tokenizer is a file of its own.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.attention import attend
from lvdm_export.nets.sizes import Width
from lvdm_export.nets.transformer import LayerNorm

TextActivation = Literal["quick_gelu", "gelu"]
Tokens = Annotated[int, Meta(ge=1, le=4096)]

# Added to the score of a later token: its weight is exactly 0, and half precision holds the number.
_LATER = -1e4


@dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes; the defaults are those of CLIP ViT-L/14, which the authors use.

    `vocabulary` counts the rows of the table of tokens, `tokens` those of a prompt, `inner` the
    channels inside of a feed-forward layer.
    """

    layers: Annotated[int, Meta(ge=1, le=256)] = 12
    width: Width = 768
    heads: Width = 12
    inner: Annotated[int, Meta(ge=1, le=1 << 18)] = 3072
    vocabulary: Annotated[int, Meta(ge=1, le=1 << 20)] = 49408
    tokens: Tokens = 77
    activation: TextActivation = "quick_gelu"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


class TextAttention(nn.Module):
    """Attention of every token to itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        """Attend within x (b, l, width); `later` (l, l) is added to the scores."""
        q, k, v = (self._split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        y = attend(q, k, v, later)  # (b, heads, l, d)
        return cast("Tensor", self.out_proj(y.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        """(b, l, width) → (b, heads, l, width/heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class TextFeedForward(nn.Module):
    """Two linear layers; quick-GELU is x·σ(1.702 x)."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.fc1 = nn.Linear(config.width, config.inner)
        self.fc2 = nn.Linear(config.inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, width) → (b, l, width)."""
        y = self.fc1(x)
        y = F.gelu(y) if self.activation == "gelu" else y * torch.sigmoid(1.702 * y)
        return cast("Tensor", self.fc2(y))


class TextLayer(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a residual connection."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.self_attn = TextAttention(config.width, config.heads)
        self.layer_norm1 = LayerNorm(config.width)
        self.mlp = TextFeedForward(config)
        self.layer_norm2 = LayerNorm(config.width)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        """(b, l, width) → (b, l, width)."""
        x = x + self.self_attn(self.layer_norm1(x), later)
        return cast("Tensor", x + self.mlp(self.layer_norm2(x)))


class TextEmbeddings(nn.Module):
    """Learned tables of tokens and of positions, drawn as CLIP's are before training."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.tokens, config.width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, l) → (b, l, width)."""
        positions = self.position_embedding.weight[: tokens.shape[1]]
        return cast("Tensor", self.token_embedding(tokens) + positions)


class TextLayers(nn.Module):
    """The layers in their order."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        """(b, l, width) → (b, l, width)."""
        for layer in self.layers:
            x = layer(x, later)
        return x


class TextEncoder(nn.Module):
    """Tokens int64 (b, l) to the last hidden state, after the final norm, float32 (b, l, width)."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = TextLayers(config)
        self.final_layer_norm = LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode prompts; what follows a prompt's end token is read like any other token."""
        x = self.embeddings(tokens)
        length = tokens.shape[1]
        later = torch.full((length, length), _LATER, dtype=torch.float32, device=x.device).triu(1)
        return cast("Tensor", self.final_layer_norm(self.encoder(x, later)).float())
