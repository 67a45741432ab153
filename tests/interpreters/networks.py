"""Small foreign networks in float64, whose weights are the same every time."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.rng import Stream, derive

Y = torch.tensor([0, 1, 2, 1])
BOTH = torch.stack([Y, (Y + 1) % 3], 1)


def pictures() -> Tensor:
    """Return four images that are not square."""
    return Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 16, 24))


def filled(module: nn.Module, gain: float = 1.0) -> nn.Module:
    """Return the module in float64 with normal weights of its own."""
    with torch.no_grad():
        for name, p in module.double().named_parameters():
            like = torch.empty(1, 0, dtype=torch.float64)
            fan_in = math.prod(p.shape[1:]) if p.ndim > 1 else 4
            p.copy_(Stream(derive(2, name)).normal(like, tuple(p.shape))[0] * gain * fan_in**-0.5)
    return module.eval()


class Plain(nn.Module):
    """Two convolutions, an in-place ReLU right after the second, and something after pooling that is not linear."""

    def __init__(self, layout: str = "channels_first", prefix: int = 0) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 5, 3, 2, 1)
        self.seen, self.hidden, self.last = nn.Identity(), nn.Linear(5, 6), nn.Linear(6, 3)
        self.layout, self.prefix = layout, prefix

    def forward(self, x: Tensor) -> Tensor:
        maps = self.second(functional.relu(self.first(x)))
        if self.layout == "channels_first":
            maps = functional.relu(self.seen(maps), inplace=True)
        elif self.layout == "channels_last":
            maps = functional.relu(self.seen(maps.permute(0, 2, 3, 1)), inplace=True).permute(0, 3, 1, 2)
        else:
            n, d, h, w = maps.shape
            tokens = torch.cat([maps.new_full((n, self.prefix, d), 7.0), maps.flatten(2).mT], 1)
            tokens = functional.relu(self.seen(tokens), inplace=True)
            maps = tokens[:, self.prefix :].mT.reshape(n, d, h, w)
        return self.last(torch.tanh(self.hidden(maps.mean((2, 3)))))


class WithToken(nn.Module):
    """A vision transformer in small: patches, a class token, attention over all, scores from the token alone."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, functional.gelu, batch_first=True) for _ in range(blocks)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), 1, 8), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])
