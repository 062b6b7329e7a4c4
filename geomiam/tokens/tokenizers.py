"""Tokenizers: modules that map the values of tokens to vectors.

Shapes: n rows, k tokens, w values per token, d width of the network.
Every tokenizer maps ``x (n, k, w)`` and ``finite (n, k, w)`` to ``(n, k, d)``. x is zero wherever
finite is False, so a hidden value has no effect, forward or backward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geomiam.at_once import BACKBONE_ROWS
from geomiam.errors import BackboneError
from geomiam.tokens.layout import Layout


class Periodic(nn.Module):
    """Trainable sines and cosines of each scalar, then one linear map per scalar and ReLU.

    φ_j(x) = [cos 2πc_jk x, sin 2πc_jk x]_k, token_j = ReLU(W_j φ_j + b_j), with c_jk from a normal
    distribution of deviation σ cut at 3σ (Zbinden et al. 2025, MaskSDM; Gorishniy et al. 2022).
    """

    def __init__(self, features: int, width: int, *, frequencies: int = 48, sigma: float = 0.01):
        super().__init__()
        self.frequency = nn.Parameter(torch.empty(features, frequencies))
        self.linear = PrivateLinear(features, 2 * frequencies, width)
        # Small frequencies at the start make a smooth function of x, since cos 2πcx ≈ 1 and sin 2πcx ≈ 2πcx.
        nn.init.trunc_normal_(self.frequency, std=sigma, a=-3 * sigma, b=3 * sigma)

    def forward(self, x: Tensor, finite: Tensor) -> Tensor:
        angle = 2 * math.pi * x * self.frequency  # 2π c_jk x: (n, k, 1) * (k, K)
        return torch.relu(self.linear(torch.cat([angle.cos(), angle.sin()], -1)))


class PolynomialScalars(nn.Module):
    """One linear map per scalar, or per scalar and its square for networks without a hidden layer."""

    def __init__(self, features: int, width: int, *, squares: bool):
        super().__init__()
        self.squares, self.linear = squares, PrivateLinear(features, 1 + squares, width)

    def forward(self, x: Tensor, finite: Tensor) -> Tensor:
        return self.linear(self._inputs(x))

    def visible_sum(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return the sum ``(n, d)`` of the tokens that are ``visible (n, k)``; x is 0 where hidden."""
        # Σ_j (w_j x_j + b_j) is one product of all scalars; the tokens are never in memory.
        biases = visible.to(x.dtype) @ self.linear.bias
        return torch.addmm(biases, self._inputs(x).flatten(1), self.linear.weight.flatten(0, 1))

    def _inputs(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.square()], -1) if self.squares else x


class Circular(nn.Module):
    """Harmonics of an angle, then one linear map per angle and ReLU; 0° and 360° are equal."""

    def __init__(self, features: int, width: int, *, harmonics: int = 4):
        super().__init__()
        self.harmonics = harmonics
        self.linear = PrivateLinear(features, 2 * harmonics, width)

    def forward(self, x: Tensor, finite: Tensor) -> Tensor:
        # x is in radians; whole harmonics make 0° and 360° the same token.
        angle = x * torch.arange(1, self.harmonics + 1, device=x.device)  # (n, k, 1) * (H,)
        return torch.relu(self.linear(torch.cat([angle.cos(), angle.sin()], -1)))


class Categorical(nn.Module):
    """One learned vector per class of the training data."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(max(classes, 1), width)

    def forward(self, x: Tensor, finite: Tensor) -> Tensor:
        return self.embedding(x.squeeze(-1).long())


class Symbolic(nn.Module):
    """Symbols of a series (SAX): a vector per symbol and channel, plus a vector per position.

    ``reading="embedding"`` learns a vector for each symbol. ``"scalar"`` applies one linear map per
    channel to the number of the symbol, as in the code released with MAESTRO (Mohapatra et al. 2025).
    Here the numbers are centred and scaled first, which such a map can undo. A missing symbol has no
    vector and no position, since its token is hidden.
    """

    def __init__(self, channels: int, positions: int, symbols: int, width: int, *, reading: str):
        super().__init__()
        self.symbols = symbols
        self.vector = (
            nn.Embedding(channels * symbols, width)
            if reading == "embedding"
            else PrivateLinear(channels, 1, width)
        )
        self.channels = channels
        self.position = nn.Parameter(torch.empty(positions, width))
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x: Tensor, finite: Tensor) -> Tensor:
        rank = x.unflatten(1, (self.channels, -1))  # (n, c, p, 1)
        return (self._read(rank) + self.position).flatten(1, 2)

    def _read(self, rank: Tensor) -> Tensor:
        if isinstance(self.vector, nn.Embedding):
            first = torch.arange(self.channels, device=rank.device)[:, None] * self.symbols
            return self.vector(rank.squeeze(-1).long() + first)
        # Mean and deviation of ranks 0 … α − 1 that are equally frequent, as quantile breakpoints make them.
        middle, deviation = (self.symbols - 1) / 2, ((self.symbols**2 - 1) / 12) ** 0.5
        return self.vector(((rank - middle) / deviation).transpose(1, 2)).transpose(1, 2)


class Windows(nn.Module):
    """Linear map of a window (series), patch (image) or vector, per channel, plus a position vector.

    The input of the map is the values, with ``squares`` also their squares, and their observed-indicators. So a
    window with gaps keeps its observed values, and a gap differs from a value at the mean.

    With ``private`` every position has a separate map, whose bias is its position vector. The mean of windows that
    share a map is the map of their mean: without attention between windows, only separate maps keep the months
    of a series apart.
    """

    def __init__(
        self,
        channels: int,
        positions: int,
        values: int,
        *,
        width: int,
        squares: bool = False,
        private: bool = False,
    ):
        super().__init__()
        self.channels, self.squares, self.private = channels, squares, private
        maps = channels * positions if private else channels
        self.linear = PrivateLinear(maps, (2 + squares) * values, width)
        if not private:
            self.position = nn.Parameter(torch.empty(positions, width))
            nn.init.normal_(self.position, std=0.02)

    def forward(self, x: Tensor, finite: Tensor) -> Tensor:
        # MIAM hides a window or an image with a single gap. The indicators keep what is observed.
        powers = [x, x.square()] if self.squares else [x]  # (n, k, w), k = channels · positions
        inputs = torch.cat([*powers, finite.to(x.dtype)], -1)
        if self.private:
            return self.linear(inputs)
        per_channel = inputs.unflatten(1, (self.channels, -1)).transpose(1, 2)
        tokens = self.linear(per_channel).transpose(1, 2) + self.position  # (n, c, p, d)
        return tokens.flatten(1, 2)


class BackboneTokenizer(nn.Module):
    """A backbone, then a linear map to the width of the network.

    Only rows with an observed value pass through the backbone, as ``x (n, *own dims)``. The network
    replaces the token of the other rows. A backbone without trainable weights stays in evaluation mode,
    so that its running statistics do not change either.
    """

    def __init__(self, backbone: nn.Module, *, name: str, sizes: tuple[int, ...], width: int):
        super().__init__()
        self.name, self.sizes = name, sizes
        self.encoder, self.linear = backbone, nn.Linear(backbone.width, width)  # type: ignore[arg-type]  # a Backbone

    def train(self, mode: bool = True) -> BackboneTokenizer:
        super().train(mode)
        self.encoder.train(mode and self.learns)
        return self

    @property
    def learns(self) -> bool:
        """Whether any weight of the backbone is trained."""
        return any(p.requires_grad for p in self.encoder.parameters())

    def forward(self, x: Tensor, finite: Tensor) -> Tensor:
        any_observed = finite.flatten(1).any(1)
        # Rows of zeros could move the running statistics of a backbone, so it computes observed rows only.
        encodings = x.new_zeros(len(x), self.linear.in_features)
        if any_observed.any():
            encodings[any_observed] = self._encode(x[any_observed, 0], finite[any_observed, 0])
        elif torch.is_grad_enabled() and self.learns:
            # A gradient of 0 and not an absent one, as for all weights.
            encodings = encodings + sum(0 * p.sum() for p in self.encoder.parameters())
        return self.linear(encodings).unsqueeze(1)

    def _encode(self, x: Tensor, finite: Tensor) -> Tensor:
        x, finite = x.unflatten(1, self.sizes), finite.unflatten(1, self.sizes)
        # Batch norm in training needs the whole batch at once.
        step = len(x) if self.encoder.training else BACKBONE_ROWS
        parts = [self.encoder(*pair) for pair in zip(x.split(step), finite.split(step))]
        for encoding, inputs in zip(parts, x.split(step)):
            shape = len(inputs), self.linear.in_features
            if not isinstance(encoding, Tensor) or encoding.shape != shape:
                is_tensor = isinstance(encoding, Tensor)
                actual = tuple(encoding.shape) if is_tensor else type(encoding).__name__
                raise BackboneError(
                    f"the backbone of '{self.name}' returned {actual}, expected a tensor {shape}: (n, "
                    "width) with its attribute width; pool or flatten what it returns"
                )
            if not torch.isfinite(encoding).all():
                raise BackboneError(
                    f"the backbone of '{self.name}' returned NaN or infinity from finite input: missing "
                    "values are 0 in x and False in observed, so divide by counts of at least 1"
                )
        return torch.cat(parts)


class PrivateLinear(nn.Module):
    """One linear map per input, for k inputs: ``(..., k, i)`` → ``(..., k, o)``."""

    def __init__(self, k: int, inputs: int, outputs: int):
        super().__init__()
        # U(±1/√inputs), as in MaskSDM: outputs have about the same variance for every number of inputs.
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(k, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(k, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...ki,kio->...ko", x, self.weight) + self.bias


class Tokenizers(nn.Module):
    """All tokenizers of a layout; without frequencies, scalars are linear or quadratic."""

    def __init__(
        self,
        layout: Layout,
        classes: dict[str, int],
        *,
        width: int,
        frequencies: int,
        sigma: float,
        squares: bool = False,
        window_squares: bool = False,
        private_windows: bool = False,
        symbols: str = "embedding",
        backbones: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.sizes = [p.size for p in layout.parts]
        self.parts = nn.ModuleList()
        for part in layout.parts:
            span, size = part.spans[0], part.size
            positions = size // span.channels
            tokenizer: nn.Module
            if backbones and part.name in backbones:
                tokenizer = BackboneTokenizer(
                    backbones[part.name], name=part.name, sizes=span.widths, width=width
                )
            elif count := span.variable.symbols:
                tokenizer = Symbolic(span.channels, positions, count, width, reading=symbols)
            elif part.kind == "circular":
                tokenizer = Circular(size, width)
            elif part.kind == "categorical":
                tokenizer = Categorical(classes[span.variable.name], width)
            elif part.kind != "scalar":
                tokenizer = Windows(
                    span.channels,
                    positions,
                    part.width,
                    width=width,
                    squares=window_squares,
                    # a texture is the same wherever it is in an image
                    private=private_windows and part.kind == "series",
                )
            elif frequencies:
                tokenizer = Periodic(size, width, frequencies=frequencies, sigma=sigma)
            else:
                tokenizer = PolynomialScalars(size, width, squares=squares)
            self.parts.append(tokenizer)

    def forward(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return tokens ``(n, t, d)`` of values ``(n, tokens, width)`` per part; NaN = not observed.

        Tokens outside ``visible (n, t)`` are computed from zeros and must be replaced.
        """
        masks = visible.split(self.sizes, dim=1)
        return torch.cat([self.one(p, x, v) for p, (x, v) in enumerate(zip(values, masks))], 1)

    def in_masks(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return tokens ``(k·n, t, d)`` of n rows in k masks ``visible (k·n, t)``, each computed once."""
        masks = visible.unflatten(0, (-1, len(values[0])))
        return repeated(self(values, masks.any(0)), len(masks))

    def visible_sum(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return the sum ``(k·n, d)`` of the tokens of n rows that k masks show, ``visible (k·n, t)``."""
        masks = len(visible) // len(values[0])
        sums = []
        for p, (x, mask) in enumerate(zip(values, visible.split(self.sizes, dim=1))):
            tokenizer = self.parts[p]
            if isinstance(tokenizer, PolynomialScalars):
                x = repeated(x, masks)
                finite = torch.isfinite(x) & mask.unsqueeze(-1)
                sums.append(tokenizer.visible_sum(torch.where(finite, x, 0), mask))
            else:
                tokens = self.one(p, x, mask.unflatten(0, (masks, -1)).any(0))
                weight = mask.unsqueeze(1).to(tokens.dtype)
                sums.append((weight @ repeated(tokens, masks)).squeeze(1))
        return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)

    def one(self, part: int, x: Tensor, visible: Tensor) -> Tensor:
        """Return the tokens of one part ``(n, k, d)`` from its values ``(n, k, width)``."""
        # Zeros go in before any arithmetic: in the backward pass a NaN times a gradient of 0 is NaN, so a
        # mask after the tokenizer would come too late.
        finite = torch.isfinite(x) & visible.unsqueeze(-1)
        return self.parts[part](torch.where(finite, x, 0), finite)


def repeated(x: Tensor, times: int) -> Tensor:
    """Return rows ``(n, k, w)`` several times, one copy after the other ``(times · n, k, w)``."""
    return x if times == 1 else x.repeat(times, 1, 1)
