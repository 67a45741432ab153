"""Attack against interpretability: change the explanation, not the label."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks.objective import Size, attacking, plain
from pellucid.attacks.sharing import sharing
from pellucid.errors import InputError, SpecError
from pellucid.guard import check_images, check_labels, check_logits
from pellucid.maths.ascent import Evaluate, Step, ascend
from pellucid.maths.balls import project, random_start
from pellucid.protocols import InterpreterField, Objective
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, NonNegative, register

Gain = Callable[[Tensor, Tensor], Tensor]


@register("attack", "aai")
@dataclass(frozen=True, kw_only=True)
class AAI:
    """Move the true class's saliency map, with the image kept in a ball and the label left to itself.

    x' <- clip(x + clip(x' + step_size sign(grad L(x')) - x, -eps, eps), 0, 1), from a uniform random start; L is
    top_k: -sum_{i in T} I(x', y)_i, T the top_k positions where the clean map is largest (Boopathy et al. 2020;
    Ghorbani et al. 2019);
    mass_center: the distance of the map's centre of mass sum_i |I_i| i / sum_i |I_i| from the clean one, i in
    pixels of the map (Ghorbani et al.);
    target_map: -mean_i (u (R_i - R^t_i))^2 - output_weight sum_k (p_k(x') - p_k(x))^2, R the map divided by its
    sum of magnitudes, u its positions, p the softmax (Dombrowski et al. 2019). R^t is the clean map turned by 180
    degrees, a rule that needs no other image; `towards` takes any map.

    x (N, C, H, W) in [0, 1], y (N,) the classes whose maps are attacked -> x' with |x' - x| <= eps (linf, in units of
    [0, 1]). Maps (N, h, w) are taken as they are, signed; of maps (N, C, H, W) the magnitudes are summed over channels.
    keep="last" returns the last iterate, whatever its label, as Boopathy et al. do: their measure is the rank
    correlation over images whose prediction did not change (`metrics.kendall_tau`, `metrics.stability`).
    "unchanged" returns, among the iterates with the clean prediction, the one of highest L, and the clean image
    where there is none (Ghorbani et al.). On piecewise linear networks gradient maps have no slope almost
    everywhere and the attack stays near its random start: take a smooth activation. stop_when_fooled has no
    effect: no label is what this attack is after.
    Raises InputError for fewer positions than top_k, target labels, and networks that lack what the interpreter
    needs; SpecError for mass_center without a random start (its slope at the clean image is zero).
    Source: Boopathy et al. 2020, section 5 and authors' code; Ghorbani et al. 2019, algorithm 1; Dombrowski et
    al. 2019, equation 3. Deviations: Ghorbani et al. divide the map by its sum of magnitudes in top_k too;
    Dombrowski et al. descend by Adam without a ball, output_weight is their ratio of the two terms.
    """

    interpreter: InterpreterField
    eps: Size
    step_size: Size = 0.01
    steps: Count = 200
    top_k: Count = 8
    objective: Literal["top_k", "mass_center", "target_map"] = "top_k"
    output_weight: NonNegative = 25.0
    random_start: Flag = True
    keep: Literal["last", "unchanged"] = "last"

    norm = "linf"
    aim = "map"

    def check(self) -> None:
        """Refuse a start without a slope."""
        if self.objective == "mass_center" and not self.random_start:
            raise SpecError("attack aai with objective=mass_center needs random_start: it has no slope at the image")

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
        """Return the images with other maps."""
        return self._attack(model, x, y, None, target, rng)

    def towards(
        self, model: nn.Module, x: Tensor, y: Tensor, target_map: Tensor, *, rng: Stream | None = None
    ) -> Tensor:
        """Return images whose maps resemble target_map, (N, h, w) as the attack sees maps (objective target_map)."""
        if self.objective != "target_map":
            raise InputError(f"a map is approached by attack aai with objective=target_map, not {self.objective}")
        return self._attack(model, x, y, target_map, None, rng)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x' in the ball around x that maximises any per-example objective, by the same steps."""
        return self._climb(plain(objective), check_images(x.detach()), rng or Stream(), "last")

    def _attack(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        target_map: Tensor | None,
        target: Tensor | None,
        rng: Stream | None,
    ) -> Tensor:
        if target is not None:
            raise InputError("attack aai takes no target labels: it changes the map of y, whatever is predicted")
        with attacking(model, x, y, None, None, rng) as setup:
            if not len(setup.x):
                return setup.x.clone()
            with torch.no_grad():
                clean = check_logits(model(setup.x), setup.x)
            check_labels(setup.y, len(setup.x), clean.shape[1])
            before = positions_of(self.interpreter.maps(model, setup.x, setup.y)).detach()
            if target_map is not None and target_map.shape != before.shape:
                raise InputError(f"the target map must be {tuple(before.shape)}; got {tuple(target_map.shape)}")
            aim = before.flip(1, 2) if target_map is None else target_map.detach().to(before)
            shared, labels, predicted = sharing(model), setup.y, clean.argmax(1)
            gain = self._gain(before, aim)
            outputs = functional.softmax(clean.float() if clean.dtype != torch.float64 else clean, 1)
            needed = self.keep == "unchanged" or (self.objective == "target_map" and self.output_weight > 0)

            def evaluate(point: Tensor, rows: Tensor) -> Step:
                logits = check_logits(shared(point), point) if needed else None
                maps = self.interpreter.maps(shared, point, labels[rows], create_graph=point.requires_grad)
                values = gain(positions_of(maps), rows)
                if logits is None:
                    return Step(values)
                if self.objective == "target_map" and self.output_weight > 0:
                    shift = functional.softmax(logits.to(outputs.dtype), 1) - outputs[rows]
                    values = values - self.output_weight * shift.square().sum(1)
                if self.keep == "unchanged":
                    same = logits.detach().argmax(1) == predicted[rows]
                    values = torch.where(same, values, values - values.detach() - torch.inf)  # the slope stays
                return Step(values)

            return self._climb(evaluate, setup.x, setup.rng, self.keep)

    def _gain(self, before: Tensor, aim: Tensor) -> Gain:
        """Return what is to grow: a function of the maps (n, h, w) of some rows."""
        if self.objective == "top_k":
            if self.top_k > before[0].numel():
                raise InputError(
                    f"attack aai lowers the {self.top_k} largest positions, but the maps have {before[0].numel()}: "
                    "choose a smaller top_k"
                )
            places = before.flatten(1).topk(self.top_k, dim=1).indices
            return lambda maps, rows: -maps.flatten(1).gather(1, places[rows]).sum(1)
        if self.objective == "mass_center":
            centre = mass_center(before)
            return lambda maps, rows: torch.linalg.vector_norm(mass_center(maps) - centre[rows], dim=1)
        wanted = shares(aim) * aim[0].numel()
        return lambda maps, rows: -(shares(maps) * maps[0].numel() - wanted[rows]).square().mean((1, 2))

    def _climb(self, evaluate: Evaluate, x: Tensor, rng: Stream, keep: Literal["last", "unchanged"]) -> Tensor:
        start = x
        if self.random_start and self.eps > 0:
            start = (x + random_start("linf", x, self.eps, rng.child("start"))).clamp(0, 1)

        def move(point: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            centre = x[rows]
            moved = point + self.step_size * torch.sign(slope)
            return (centre + project("linf", moved - centre, self.eps)).clamp(0, 1)

        run = ascend(evaluate, start, move, self.steps, keep="last" if keep == "last" else "best")
        if keep == "last":
            return run.x
        never = run.values == -torch.inf
        return torch.where(never.view(-1, 1, 1, 1), x, run.x)


def positions_of(maps: Tensor) -> Tensor:
    """Return maps as (N, h, w): those with channels (N, C, h, w) by the sum of magnitudes over channels."""
    if maps.ndim not in (3, 4):
        raise InputError(f"maps must be (N, h, w) or (N, C, h, w); got {tuple(maps.shape)}")
    return maps.abs().sum(1) if maps.ndim == 4 else maps


def shares(maps: Tensor) -> Tensor:
    """Return maps (N, h, w) divided by their sum of magnitudes, zeros where that is zero."""
    total = maps.abs().sum((1, 2), keepdim=True)
    return maps / torch.where(total > 0, total, torch.ones_like(total))


def mass_center(maps: Tensor) -> Tensor:
    """Return the centre of mass of the magnitudes of maps (N, h, w), as (row, column), (N, 2).

    Source: Ghorbani et al. 2019, section 3.

    >>> mass_center(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, -3.0]]]))
    tensor([[1.0000, 1.7500]])
    """
    weight = shares(maps.abs())
    rows = torch.arange(maps.shape[1], device=maps.device).to(maps)
    columns = torch.arange(maps.shape[2], device=maps.device).to(maps)
    return torch.stack([weight.sum(2) @ rows, weight.sum(1) @ columns], 1)
