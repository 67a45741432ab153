"""What a unit of a network wants to see: images made to excite it."""

import contextlib
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.errors import InputError, SpecError
from pellucid.guard import check_images, check_logits, frozen, recording
from pellucid.interpreters.layer import read
from pellucid.maths.relu import pass_through_relu, relu_replaced
from pellucid.models.classifier import Classifier
from pellucid.models.layers import input_of_last_linear
from pellucid.protocols import AttackField
from pellucid.rng import Stream
from pellucid.spec import register, title

Unit = Literal["neuron", "channel", "class"]


def noise_images(n: int, shape: tuple[int, int, int], rng: Stream | None = None) -> Tensor:
    """Return grey images with faint noise to start from, clip(0.5 + N(0, 1) / 20, 0, 1): float32 (n, C, H, W).

    Source: Engstrom et al. 2019, authors' code.

    >>> bool((noise_images(2, (1, 4, 4)) - 0.5).abs().max() < 0.5)
    True
    """
    like = torch.empty(n, *shape, device="cpu")
    return (0.5 + (rng or Stream()).normal(like) / 20).clamp(0, 1)


def _ascent() -> Any:
    return PGD(norm="l2", eps=1000, step_size=1, steps=200, random_start=False)


@register("visualisation", "feature_visualisation")
@dataclass(frozen=True, kw_only=True)
class FeatureVisualisation:
    """The image that excites one unit most, climbed to from a given image or from noise.

    x* = argmax_x r_i(x) from a seed x_0, by x <- clip(x + step_size g / ||g||_2, 0, 1), g = d r_i / dx, r_i being
    neuron: component i of the penultimate representation, what the last linear layer takes (the pooled map, where a
    head on it is declared); channel: the mean of channel i of a layer's map; class: logit i.

    seeds (N, C, H, W) in [0, 1], index (N,) or one number -> images (N, C, H, W) in [0, 1]. layer (channel only)
    names the layer, None is the one that GradCAM would look at. fake_relu="last" lets the gradient through the last
    ReLU also where it is off ("all": through every ReLU), so that dead units can wake up; it is meant for
    networks whose last map comes out of a ReLU, and elsewhere may lead astray. The ascent is any attack that climbs
    objectives; l2 at a radius of 1000 is no bound.
    Raises InputError for units that are not there; SpecError for a layer that is not asked for.
    Source: Engstrom et al. 2019, section 4.1 and authors' code (l2, step 1, 200 steps, fake_relu="last" on ResNets);
    Boopathy et al. 2020, section 5.3 (neuron 3; prints no settings). Deviations: fake_relu is off by default.
    """

    unit: Unit = "neuron"
    layer: str | None = None
    fake_relu: Literal["none", "last", "all"] = "none"
    ascent: AttackField = field(default_factory=_ascent)

    def check(self) -> None:
        """Refuse a layer for units that lie at a place of their own."""
        if self.fake_relu == "last" and self.unit == "channel":
            raise SpecError(
                f"{title(type(self))}: the last ReLU may lie behind the layer of a channel: take fake_relu=all or none"
            )
        if self.layer is not None and self.unit != "channel":
            raise SpecError(f"{title(type(self))} takes a layer with unit=channel only, not with unit={self.unit}")

    def __call__(self, model: nn.Module, seeds: Tensor, index: Tensor | int, *, rng: Stream | None = None) -> Tensor:
        """Return one image per seed that excites the unit of its index."""
        x = check_images(seeds)
        units = _units(index, x)
        if not len(x):
            return x.clone()
        with frozen(model), recording():
            rule = self._rule(model, x[:1])

            def excitement(points: Tensor, rows: Tensor) -> Tensor:
                with relu_replaced(rule) if rule else contextlib.nullcontext():
                    return self._values(model, points, units[rows])

            images: Tensor = self.ascent.maximise(excitement, x, rng=rng)
        return images

    def activation(self, model: nn.Module, x: Tensor, index: Tensor | int) -> Tensor:
        """Return r_i(x) of images, (N,): how much they excite the unit."""
        x = check_images(x)
        with frozen(model), recording():
            return self._values(model, x, _units(index, x)).detach()

    def _values(self, model: nn.Module, x: Tensor, units: Tensor) -> Tensor:
        if self.unit == "class":
            values = check_logits(model(x), x)
        elif self.unit == "channel":
            values = read(model, x, self.layer, None, create_graph=True).features.mean((2, 3))
        elif isinstance(model, Classifier) and model.head is not None:
            values = model.feature_map(x).mean((2, 3))
        else:
            values = input_of_last_linear(model, x)
        if bool((units < 0).any()) or bool((units >= values.shape[1]).any()):
            raise InputError(f"there is no {self.unit} of that index: they are 0..{values.shape[1] - 1}")
        return values.gather(1, units[:, None])[:, 0]

    def _rule(self, model: nn.Module, x: Tensor) -> Any:
        """Return the rule for ReLUs, number and input; None where they are left alone."""
        if self.fake_relu == "none":
            return None
        with relu_replaced(lambda _, values: functional.relu(values)) as met, recording():
            self._values(model, x, torch.zeros(1, dtype=torch.int64, device=x.device))
        last = met.count - 1
        every = self.fake_relu == "all"
        return lambda number, values: pass_through_relu(values) if every or number == last else functional.relu(values)


def _units(index: Tensor | int, x: Tensor) -> Tensor:
    """Return the index of every image's unit, int64 (N,); raise InputError for other shapes and types."""
    units = torch.as_tensor(index, device=x.device)
    units = units.expand(len(x)) if units.ndim == 0 else units
    if units.shape != (len(x),) or units.is_floating_point() or units.dtype == torch.bool:
        raise InputError(f"index must be one whole number, or one for each of the {len(x)} seeds")
    return units.long()
