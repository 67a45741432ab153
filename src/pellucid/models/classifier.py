"""The base of every network: images in [0, 1] to logits, its own normalisation, and what an explanation may use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.maths.passes import note_forward


class Classifier(nn.Module):
    """A network from images x (N, C, H, W) in [0, 1] to logits (N, K) that owns its normalisation.

    A subclass defines `features(normalised x) -> (N, D, h, w)` and, unless it has a linear head on pooled
    features, `classify(features) -> logits`. `head` is declared (set in `__init__`) exactly where
    classify(f) == head(f.mean((2, 3))); class activation maps rely on it.
    """

    mean: Tensor
    std: Tensor
    head: nn.Linear | None

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            channels = torch.as_tensor(value, dtype=torch.get_default_dtype()).reshape(1, -1, 1, 1)
            self.register_buffer(name, channels)
        if bool((self.std <= 0).any()):
            raise InputError(f"std must be positive, not {std}")
        self.head = None

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std, per channel."""
        return (x - self.mean) / self.std

    def features(self, x: Tensor) -> Tensor:
        """Return the last feature map of normalised images."""
        raise NotImplementedError(f"{type(self).__name__} does not define features")

    def classify(self, f: Tensor) -> Tensor:
        """Return the logits of a feature map: the linear head on pooled features unless a subclass says otherwise."""
        if self.head is None:
            raise NotImplementedError(f"{type(self).__name__} declares no head and does not define classify")
        logits: Tensor = self.head(f.mean((2, 3)))
        return logits

    def feature_map(self, x: Tensor) -> Tensor:
        """Return the last feature map of images in [0, 1]."""
        note_forward(len(x))
        return self.features(self.normalise(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images in [0, 1]."""
        return self.classify(self.feature_map(x))
