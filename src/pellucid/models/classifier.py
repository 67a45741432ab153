"""The base of every network: images in [0, 1] to logits, its own normalisation, and what an explanation may use."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.errors import InputError, SpecError
from pellucid.maths.passes import note_forward
from pellucid.spec import Reals, title

PerChannel = Annotated[Reals, BeforeValidator(lambda value: (value,) if isinstance(value, (int, float)) else value)]


@contextlib.contextmanager
def building(spec: Any) -> Iterator[None]:
    """Turn the failure to make layers of the sizes that a description asks for into a SpecError."""
    try:
        yield
    except (RuntimeError, TypeError, MemoryError) as error:
        why = str(error).partition("\n")[0]
        raise SpecError(f"{title(type(spec))} cannot be built with these sizes ({why})") from None


def he_initialise(network: nn.Module) -> None:
    """Draw the weights of convolutions from N(0, 2 / fan-out) (He et al. 2015), as ResNets do; biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)


def standardised(x: Tensor) -> Tensor:
    """Return images (N, C, H, W), each with mean 0 and deviation 1 over all its values, or nearly flat: see PerImage.

    >>> standardised(torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2)).flatten()
    tensor([-1., -1.,  1.,  1.])
    """
    values = x.flatten(1)
    centred = values - values.mean(1, keepdim=True)
    deviation = (centred.square().mean(1, keepdim=True) + torch.finfo(x.dtype).tiny).sqrt()
    return (centred / deviation.clamp_min(max(1, values.shape[1]) ** -0.5)).view_as(x)


class Classifier(nn.Module):
    """A network from images x (N, C, H, W) in [0, 1] to logits (N, K) that owns its normalisation.

    A subclass defines `features(normalised x) -> (N, D, h, w)` and, unless it has a linear head on pooled
    features, `classify(features) -> logits`. `head` is declared (set in `__init__`) exactly where
    classify(f) == head(f.mean((2, 3))); class activation maps rely on it.
    """

    mean: Tensor
    std: Tensor
    head: nn.Linear | None
    channels: int | None  # of the images it takes, where that is known
    feature_layer: str | None = None  # the layer to look at, of a foreign network
    per_image: bool = False  # whether each image is standardised by its own mean and deviation first

    def __init__(
        self,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            numbers = torch.as_tensor(value, dtype=torch.get_default_dtype()).reshape(1, -1, 1, 1)
            if not numbers.numel() or not bool(numbers.isfinite().all()):
                raise InputError(f"{name} must be one finite number, or one per channel, not {value}")
            self.register_buffer(name, numbers)
        if bool((self.std <= 0).any()):
            raise InputError(f"std must be positive, not {std}")
        known = {self.mean.shape[1], self.std.shape[1]} - {1} | ({channels} - {None})
        if len(known) > 1:
            raise InputError(f"mean {mean} and std {std} must have one number, or one per channel")
        self.channels = known.pop() if known else channels
        self.head = None

    @property
    def splits(self) -> bool:
        """Whether logits are classify(feature_map(x)), so that what lies between can be looked at."""
        return type(self).forward is Classifier.forward

    @property
    def itself(self) -> "Classifier":
        """The network that does the work."""
        return self

    @property
    def named(self) -> nn.Module:
        """The module whose layers have the names that people know."""
        return self

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std, per channel; raise InputError for images that the network cannot take.

        Where `per_image` is set, x is first standardised image by image (see `PerImage`).
        """
        if x.ndim != 4 or x.shape[1] != (self.channels or x.shape[1]):
            raise InputError(f"the network takes images (N, {self.channels or 'C'}, H, W); got shape {tuple(x.shape)}")
        out = (standardised(x) if self.per_image else x).sub(self.mean) / self.std
        cast = torch.is_autocast_enabled(x.device.type) and out.dtype != torch.float64  # which autocast leaves alone
        first = next(self.parameters(), None)
        if first is not None and not cast and all(p.dtype != out.dtype for p in self.parameters()):
            raise InputError(
                f"the images are {out.dtype} when normalised, the network's weights {first.dtype}: "
                f"convert the images (x.to({first.dtype})), and the whole network if it was adapted"
            )
        return out

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
