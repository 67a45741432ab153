"""A network that learns to make adversarial perturbations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from pellucid.attacks.objective import Size, attacking, label_objective
from pellucid.errors import InputError
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate
from pellucid.maths.passes import note_backward
from pellucid.maths.resume import kept
from pellucid.protocols import Norm, Objective, TargetRule
from pellucid.rng import Stream, derive, global_seed, permutation
from pellucid.spec import Count, Flag, NonNegative, Positive, register

State = dict[str, Tensor]
_PIECE = 1000  # training steps that are remembered together


class Network(nn.Module):
    """An encoder and decoder with residual blocks: images (N, C, H, W) of any size to unbounded ones of that size.

    Two halvings of the sides, `blocks` residual blocks, two doublings; each layer is normalised within its image, so
    that images do not depend on each other. The last layer starts at zero: no perturbation.
    """

    def __init__(self, channels: int, width: int, blocks: int = 2) -> None:
        super().__init__()
        wide = 4 * width
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(k * width, 2 * k * width, 3, padding=1, stride=2) for k in (1, 2)])
        self.blocks = nn.ModuleList([nn.Conv2d(wide, wide, 3, padding=1) for _ in range(2 * blocks)])
        self.up = nn.ModuleList([nn.Conv2d(2 * k * width, k * width, 3, padding=1) for k in (2, 1)])
        self.last = nn.Conv2d(2 * width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is to be bounded and added."""
        first = h = _normal(functional.relu(self.first(2 * x - 1)))
        sizes = []
        for layer in self.down:
            sizes.append(h.shape[2:])
            h = _normal(functional.relu(layer(h)))
        for enter, leave in zip(self.blocks[::2], self.blocks[1::2]):
            h = h + _normal(leave(functional.relu(_normal(enter(h)))))
        for layer, size in zip(self.up, reversed(sizes)):
            h = _normal(functional.relu(layer(functional.interpolate(h, size=tuple(size)))))
        out: Tensor = self.last(torch.cat([h, first], 1))
        return out


class Critic(nn.Module):
    """How much an image looks like one of the data: (N, C, H, W) -> (N,)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, stride=2) for a, b in ((channels, width), (width, 2 * width))
        )
        self.head = nn.Conv2d(2 * width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score per image."""
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
        score: Tensor = self.head(x).flatten(1).mean(1)
        return score


def _normal(h: Tensor) -> Tensor:
    return functional.group_norm(h, 1)


@register("attack", "generative_perturbation")
@dataclass(frozen=True, kw_only=True)
class GenerativePerturbation:
    """A network G, trained to fool the model, makes the perturbation of any image in one forward pass.

    x' = clip(x + P(G(x))), P(g) = g min(1, eps / ||g||_p) with the norm p = linf or l2 of the image; G ends in tanh.
    form="gap" lowers -log of the batch's mean H(y, yhat(x')), with a target log of the mean H(t, yhat(x')).
    form="advgan" lowers the mean of max(z_y - max_{j != y} z_j, 0) (of the target: max_{j != t} z_j - z_t)
    + gan_weight (D(x') - 1)^2 + hinge_weight max(0, ||G(x)||_2 - c), while a second network D learns to lower
    (D(x) - 1)^2 + D(x')^2; c is the length of the longest perturbation in the ball.

    `fit(model, x, y)` trains G on images x (N, C, H, W) in [0, 1] with labels y (N,) and returns its weights;
    `apply(x, state)` perturbs other images. A call does both on the same images, so that they depend on each other;
    stop_when_fooled leaves those that are misclassified to begin with as they are. An evaluation teaches it with
    `fit_images` training images. universal: G sees one fixed noise image instead of x, so that all images of one size
    get the same perturbation. steps of Adam (lr; 0.5 and 0.999) on batch_size images each; width is the number of
    feature maps at full size. rng draws the first weights, the order of the images and the noise. Training costs
    steps * batch_size forward and backward passes, and is remembered in pieces of 1000 steps.
    Raises InputError for images outside [0, 1] or of another kind than those learned from, labels out of range, and for
    `maximise`.
    Source: Poursaeed et al. 2018, section 3 (gap); Xiao et al. 2018 (AdvGAN), equations 1 to 4 (advgan).
    Deviations: the networks are smaller than the papers' and normalise within each image; 1e-6 is added inside the
    logarithm. AdvGAN has no ball in its formulas, only the hinge; D learns by least squares, as in its experiments.
    """

    eps: Size
    norm: Norm = "linf"
    form: Literal["gap", "advgan"] = "gap"
    universal: Flag = False
    steps: Count = 2000
    batch_size: Count = 64
    lr: Positive = 0.002
    width: Count = 16
    gan_weight: NonNegative = 1.0
    hinge_weight: NonNegative = 1.0
    target: TargetRule | None = None
    fit_images: Count = 1000

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Tensor:
        """Return the images perturbed by a network that was trained on them."""
        with attacking(model, x, y, target, self.target, rng) as setup:
            evaluate = label_objective(model, setup, self._loss)
            out = self.apply(setup.x, self._learn(evaluate, setup.x, setup.rng))
            if stop_when_fooled and len(out):
                with torch.no_grad():
                    finished = evaluate(setup.x, torch.arange(len(x), device=x.device)).finished
                if finished is not None:
                    out = torch.where(finished.view(-1, 1, 1, 1), setup.x, out)
            return out

    def fit(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: Stream | None = None) -> State:
        """Return the weights of G, learned from the images, and what `apply` needs beside them."""
        with attacking(model, x, y, None, self.target, rng) as setup:
            return self._learn(label_objective(model, setup, self._loss), setup.x, setup.rng)

    def apply(self, x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return clip(x + P(G(x))) with the G and the eps of `state`."""
        x = check_images(x.detach() if isinstance(x, Tensor) else x)
        noise = state.get("noise")
        if x.shape[1] != state["generator.first.weight"].shape[1] or (
            noise is not None and noise.shape[1:] != x.shape[1:]
        ):
            raise InputError(f"the generator was trained for images of another kind than {tuple(x.shape[1:])}")
        with torch.no_grad():
            weights = {name: value.to(x.device) for name, value in state.items()}
            delta = _scaled(self._generated(self._network(x), weights, x), self.norm, float(state["eps"]))
            return (x + delta.to(x.dtype)).clamp(0, 1)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: a network that serves all images raises the mean of an objective, not that of each image."""
        raise InputError("generative_perturbation is trained for the labels of many images: it climbs no objective")

    @property
    def _loss(self) -> Literal["cross_entropy", "margin"]:
        return "cross_entropy" if self.form == "gap" else "margin"

    def _network(self, x: Tensor) -> Network:
        """Return G for images like x without weights."""
        with torch.device("meta"):
            return Network(x.shape[1], self.width)

    def _generated(self, network: Network, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return G(x), in the precision of the weights."""
        weights = _part(state, "generator")
        seen = state.get("noise", x).to(weights["first.weight"].dtype)
        made: Tensor = functional_call(network, weights, (seen,))
        return torch.tanh(made).expand(x.shape)

    def _learn(self, evaluate: Evaluate, x: Tensor, rng: Stream) -> State:
        words = rng.child("generator").words(x, ())  # the same seed for the same images, in whatever order
        seed = int(words.sum()) % (1 << 62)
        state = self._begin(x, seed)
        if len(x) and self.eps > 0:
            for number in range(math.ceil(self.steps / _PIECE)):
                piece = range(number * _PIECE, min(self.steps, (number + 1) * _PIECE))
                state = kept(f"train-{number}", partial(self._train, evaluate, x, state, piece, seed))
                state = {name: value.to(x.device) for name, value in state.items()}
        return {k: v.detach() for k, v in state.items() if k.startswith("generator.") or k in ("eps", "noise")}

    def _begin(self, x: Tensor, seed: int) -> State:
        wide = torch.promote_types(x.dtype, torch.float32)
        with global_seed(seed), torch.device("cpu"):  # there, so that the weights are the same on every device
            networks: dict[str, nn.Module] = {"generator": Network(x.shape[1], self.width)}
            if self.form == "advgan":
                networks["critic"] = Critic(x.shape[1], self.width)
        state = {
            f"{part}.{name}": value.detach().to(x.device, wide)
            for part, network in networks.items()
            for name, value in network.named_parameters()
        }
        moments = {f"{kind}.{name}": torch.zeros_like(v) for kind in ("mean", "square") for name, v in state.items()}
        state |= moments | {"eps": torch.tensor(self.eps, dtype=torch.float64, device=x.device)}
        if self.universal:
            state["noise"] = Stream(derive(seed, "noise")).uniform(x.new_zeros((1, 0), dtype=wide), tuple(x.shape[1:]))
        return state

    def _train(self, evaluate: Evaluate, x: Tensor, state: State, steps: range, seed: int) -> State:
        """Return the state after some more steps."""
        state, size = dict(state), min(self.batch_size, len(x))
        network, epoch = self._network(x), len(x) // size
        for step in steps:
            order = permutation(len(x), derive(seed, "epoch", step // epoch))
            rows = order[size * (step % epoch) :][:size].to(x.device)
            leaves = {k: v.requires_grad_(True) for k, v in _named(state, "generator").items()}
            made = self._generated(network, state | leaves, x[rows])
            moved = (x[rows] + _scaled(made, self.norm, self.eps).to(x.dtype)).clamp(0, 1)
            values = evaluate(moved, rows).values
            loss = self._lowered(values)
            if self.form == "advgan":
                loss = loss + self._looks(state, made, moved)
            note_backward(size)
            _adam(state, leaves, loss, self.lr, step)
            if self.form == "advgan":
                leaves = {k: v.requires_grad_(True) for k, v in _named(state, "critic").items()}
                real, false = (_judged(state | leaves, images) for images in (x[rows], moved.detach()))
                _adam(state, leaves, (real - 1).square().mean() + false.square().mean(), self.lr, step)
        return state

    def _lowered(self, values: Tensor) -> Tensor:
        """Return the fooling loss of values that are to rise: H(y, yhat), -H(t, yhat) or margins."""
        if self.form == "advgan":
            return (-values).clamp(min=0).mean()
        mean = values.mean()
        return -torch.sign(mean.detach()) * (mean.abs() + 1e-6).log()

    def _looks(self, state: State, made: Tensor, moved: Tensor) -> Tensor:
        longest = self.eps * (math.sqrt(made[0].numel()) if self.norm == "linf" else 1)
        length = (made.square().flatten(1).sum(1) + 1e-12).sqrt()
        hinge = (length - longest).clamp(min=0).mean()
        return self.gan_weight * (_judged(state, moved) - 1).square().mean() + self.hinge_weight * hinge


def _scaled(g: Tensor, norm: Norm, eps: float) -> Tensor:
    """Return g min(1, eps / ||g||), per image; unlike a projection, linf shrinks all pixels alike."""
    g = g.to(
        torch.promote_types(g.dtype, torch.float32)
    )  # under autocast G makes halves, whose rounding leaves the ball
    length = torch.linalg.vector_norm(g.flatten(1), ord=torch.inf if norm == "linf" else 2, dim=1)
    share: Tensor = eps / length.clamp(min=max(eps, 1e-30))
    return g * share.view(-1, 1, 1, 1)


def _named(state: Mapping[str, Tensor], part: str) -> State:
    """Return the weights of one network, copied, under their full names."""
    return {name: value.detach().clone() for name, value in state.items() if name.startswith(f"{part}.")}


def _part(state: Mapping[str, Tensor], part: str) -> State:
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def _judged(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    weights = _part(state, "critic")
    kind = weights["layers.0.weight"]
    with torch.device("meta"):
        critic = Critic(kind.shape[1], kind.shape[0])
    score: Tensor = functional_call(critic, weights, (x.to(kind.dtype),))
    return score


def _adam(state: State, leaves: State, loss: Tensor, lr: float, step: int) -> None:
    """Move some weights of the state one step down a loss (Kingma & Ba 2015; moments 0.5 and 0.999)."""
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    for (name, weight), slope in zip(leaves.items(), slopes):
        mean, square = state[f"mean.{name}"], state[f"square.{name}"]
        state[f"mean.{name}"] = mean = 0.5 * mean + 0.5 * slope
        state[f"square.{name}"] = square = 0.999 * square + 0.001 * slope.square()
        size = (square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        state[name] = weight.detach() - lr * (mean / (1 - 0.5 ** (step + 1))) / size
