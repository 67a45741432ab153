"""How a compact stylizer is fitted: first its encoder, by what it can tell and rebuild, then its decoder, by style."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.maths.gram import gram
from pellucid.rng import global_seed
from pellucid.transforms.adain import adain, moments
from pellucid.transforms.autoencoder import CompactStylizer

State = dict[str, Tensor]
_RECONSTRUCTION = 30.0  # weight of the squared error beside the cross-entropy
_OUTSIDE = 10.0  # weight of what leaves [0, 1]


class Pupil(nn.Module):
    """A stylizer while its encoder learns: batch norm behind every convolution, and two heads.

    One rebuilds the image from the deepest map, the other tells the class from its mean, where there are classes:
    reconstruction alone leaves features that say little about texture, which is what VGG's classifier features are for.
    """

    def __init__(self, width: int, levels: int, classes: int) -> None:
        super().__init__()
        self.stylizer = CompactStylizer(width, levels)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(cast(nn.Conv2d, layer).out_channels) for layer in self.stylizer.encoder
        )
        self.head = nn.Linear(4 * width, max(classes, 1))
        self.rebuild = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((4 * width, 2 * width), (2 * width, width), (width, 3))
        )

    def loss(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return 30 ||x - rebuild(f(x))||^2 / n + the cross-entropy of the classes."""
        deepest = self.stylizer.all_features(images, self.norms)[-1]
        rebuilt = deepest
        for place, step in enumerate(self.rebuild):
            rebuilt = step(functional.interpolate(rebuilt.relu(), scale_factor=2) if place else rebuilt)
        loss = _RECONSTRUCTION * functional.mse_loss(rebuilt, images)
        return loss if labels is None else loss + functional.cross_entropy(self.head(deepest.mean((2, 3))), labels)

    @torch.no_grad()
    def finished(self) -> CompactStylizer:
        """Return the stylizer with batch norm made part of its convolutions: w g / s, (b - m) g / s + beta."""
        for pair in zip(self.stylizer.encoder, self.norms):
            layer, norm = cast(nn.Conv2d, pair[0]), cast(nn.BatchNorm2d, pair[1])
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            scale = norm.weight / (variance + norm.eps).sqrt()
            layer.weight.mul_(scale.view(-1, 1, 1, 1))
            cast(Tensor, layer.bias).sub_(mean).mul_(scale).add_(norm.bias)
        return self.stylizer


@dataclass(frozen=True)
class StyleLosses:
    """What the decoder is trained by: content L_c, style L_s and L_g, and how far pixels leave [0, 1], L_o."""

    content: Tensor
    style: Tensor
    gram: Tensor
    outside: Tensor

    def total(self, style_weight: float, gram_weight: float) -> Tensor:
        """Return L_c + lambda L_s + gamma L_g + 10 L_o."""
        return self.content + style_weight * self.style + gram_weight * self.gram + _OUTSIDE * self.outside


def style_losses(network: CompactStylizer, content: Tensor, style: Tensor) -> StyleLosses:
    """Return the losses of images (N, 3, H, W) stylised after others (N, 3, h, w).

    t = AdaIN(f(c), f(s)),  x' = decode(t)
    L_c = mean (f_d(x') - t_d)^2, d the deepest map; with sums over all levels l
    L_s = sum mean (mean(f_l(x')) - mean(f_l(s)))^2 + mean (std(f_l(x')) - std(f_l(s)))^2,
    both divided by the mean square of std(f_l(s)) in the batch, so that every level counts alike;
    L_g = sum ||G_l(x') - G_l(s)||_F^2 / ||G_l(s)||_F^2, the mean over images.

    The encoder's weights are the caller's to freeze. Source: Huang & Belongie 2017, equations 11-13; L_g: Gatys et al.
    2016, equation 5. Deviations: the divisions; the Gram matrices of few channels beside their moments; the penalty on
    values outside [0, 1].
    """
    with torch.no_grad():
        wanted = network.all_features(style)
        own, theirs = network.features(content), network.features(style)
        target = [adain(a, b) for a, b in zip(own, theirs)]
    made = network.decode(target)
    found = network.all_features(made)
    style_loss, gram_loss, scale = content.new_zeros(()), content.new_zeros(()), content.new_ones(())
    for maps, theirs_too in zip(found, wanted):
        (own_mean, own_deviation), (mean, deviation) = moments(maps), moments(theirs_too)
        scale = deviation.square().mean().clamp(min=1e-8)
        style_loss = style_loss + ((own_mean - mean) ** 2 + (own_deviation - deviation) ** 2).mean() / scale
        matrices = gram(theirs_too)
        off, size = ((value**2).sum((1, 2)) for value in (gram(maps) - matrices, matrices))
        gram_loss = gram_loss + (off / size.clamp(min=1e-12)).mean()
    outside = (made - made.clamp(0, 1)).square().mean()
    return StyleLosses(functional.mse_loss(found[-1], target[-1]) / scale, style_loss, gram_loss, outside)


def pieces(images: Tensor, size: int, least: float, generator: torch.Generator) -> Tensor:
    """Return a random square piece of each image (N, C, H, W), mirrored half of the time, at size x size.

    Its side is between `least` and the whole of the image's shorter side; it is resized bilinearly.
    """
    side, made = min(images.shape[-2:]), []
    for image in images:
        draw = torch.rand(4, generator=generator).tolist()
        taken = max(1, round(side * (least + (1 - least) * draw[0])))
        top, left = (int(share * (length - taken + 1)) for share, length in zip(draw[1:3], image.shape[-2:]))
        piece = image[:, top : top + taken, left : left + taken]
        piece = piece.flip(2) if draw[3] < 0.5 else piece
        if taken != size:
            piece = functional.interpolate(piece[None], (size, size), mode="bilinear", antialias=True)[0]
        made.append(piece)
    return torch.stack(made)


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (N, 3, H, W) with another contrast, half to one and a half times, and half of them other colours.

    c (x - mean x) + mean x, clipped, c uniform; the channels of half of the images are permuted. So a few paintings
    stand for more: the decoder learns to follow contrasts and colours that they do not have.
    """
    made = []
    for image in images:
        contrast, share = torch.rand(2, generator=generator).tolist()
        order = torch.randperm(3, generator=generator) if share < 0.5 else torch.arange(3)
        mean = image.mean((1, 2), keepdim=True)
        made.append(((0.5 + contrast) * (image - mean) + mean).clamp(0, 1)[order.to(image.device)])
    return torch.stack(made)


def blank(width: int, levels: int, classes: int, seed: int) -> Pupil:
    """Return a fresh pupil whose weights depend on the seed alone."""
    with global_seed(seed), torch.device("cpu"):
        return Pupil(width, levels, classes)


def saved(module: nn.Module, optimiser: torch.optim.Optimizer) -> State:
    """Return all that training goes on from, as named tensors."""
    held = {f"weights.{name}": value.detach().clone() for name, value in module.state_dict().items()}
    for number, moves in optimiser.state_dict()["state"].items():
        held |= {f"moves.{number}.{name}": torch.as_tensor(value).clone() for name, value in moves.items()}
    return held


def weights_in(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights among what `saved` gave."""
    return {key.removeprefix("weights."): value for key, value in state.items() if key.startswith("weights.")}


def restore(module: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Take up what `saved` gave."""
    module.load_state_dict(weights_in(state))
    moves: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("moves."):
            _, number, name = key.split(".", 2)
            moves.setdefault(int(number), {})[name] = value.clone()
    optimiser.load_state_dict({"state": moves, "param_groups": optimiser.state_dict()["param_groups"]})
