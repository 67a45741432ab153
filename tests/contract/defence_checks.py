"""What every defence promises.

A check takes a tiny defence and the world; all `check_*` are run on each.

A defence says in a class attribute `moves` which quantity it is there to move (a key of MEASURES); only
plain training moves "nothing". Batch-norm statistics may move as they do in any training forward; an attack
inside a defence must not move them.
"""

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import FGSM
from pellucid.defences import Standard, path_attribution
from pellucid.errors import InputError
from pellucid.maths.cam import cam
from pellucid.maths.losses import certainty_entropy, cross_entropy
from pellucid.protocols import Context
from pellucid.rng import Stream, derive
from pellucid.spec import name_of

from .tiny import substituted
from .worlds import Trained, World, numbers, pictures, predicted, rough, smooth, undisturbed

N = 6
LABELS = torch.arange(N) % 3


class Teacher(nn.Module):
    """What a defence that learns from a teacher is taught: smooth logits that depend on nothing that is trained."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(1, self.classes + 1, device=x.device, dtype=x.dtype)
        return 8 * torch.sin(3 * x.flatten(1).mean(1, keepdim=True) * place + place)


HERE = Context(progress=0.7, step=3, seed=5, positions=torch.arange(N) + 10, network=lambda task: Teacher(3))
NOWHERE = Context(network=HERE.network)  # what ctx None stands for, but for the teacher


@dataclass(frozen=True, kw_only=True)
class Offset:
    """Stands in for the attack inside a defence: a change that depends on nothing the weights can move."""

    eps: float = 0.05
    norm: str = "linf"
    _registered_as: ClassVar[tuple[str, str]] = ("attack", "offset of the contract suite")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        return self.maximise(None, x)

    def maximise(self, objective: Any, x: Tensor, **_: Any) -> Tensor:
        shift = 2 * numbers(1, *x.shape[1:], seed=9, dtype=x.dtype) - 1
        return (x.detach() + self.eps * shift.to(x.device)).clamp(0, 1)


# ------------------------------------------------------------------------------- the quantities defences move


def _slopes(values: Tensor, x: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(values.sum(), x, retain_graph=True)
    return slope.flatten(1)


def input_gradient_norm(model: nn.Module, x: Tensor, y: Tensor) -> float:
    leaf = x.clone().requires_grad_(True)
    return float(_slopes(cross_entropy(model(leaf), y), leaf).norm(dim=1).mean())


def certainty_gradient_norm(model: nn.Module, x: Tensor, y: Tensor) -> float:
    leaf = x.clone().requires_grad_(True)
    return float(_slopes(certainty_entropy(model(leaf)), leaf).norm(dim=1).mean())


def entropy_gradient_norm(model: nn.Module, x: Tensor, y: Tensor) -> float:
    leaf = x.clone().requires_grad_(True)
    log_p = functional.log_softmax(model(leaf), 1)
    return float(_slopes(-(log_p.exp() * log_p).sum(1), leaf).square().sum(1).mean().sqrt())


def logit_gradient_norm(model: nn.Module, x: Tensor, y: Tensor) -> float:
    leaf = x.clone().requires_grad_(True)
    return float(_slopes(model(leaf).gather(1, y[:, None]), leaf).norm(dim=1).mean())


def curvature(model: nn.Module, x: Tensor, y: Tensor) -> float:
    leaf = x.clone().requires_grad_(True)
    here = _slopes(cross_entropy(model(leaf), y), leaf)
    ahead = (x + 0.5 * functional.normalize(here.sign()).view_as(x)).requires_grad_(True)
    return float((_slopes(cross_entropy(model(ahead), y), ahead) - here).norm(dim=1).mean())


def _jacobian(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    return torch.stack([_slopes(column, leaf) for column in model(leaf).unbind(1)], 1)


def jacobian_norm(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float(_jacobian(model, x).flatten(1).norm(dim=1).mean())


def cross_lipschitz(model: nn.Module, x: Tensor, y: Tensor) -> float:
    rows = _jacobian(model, x)
    return float((rows[:, :, None] - rows[:, None]).norm(dim=3).mean())


def attacked_error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((predicted(model, FGSM(eps=0.15)(model, x, y)) != y).float().mean())


def map_discrepancy(model: Trained, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        rows, near = torch.arange(len(x)), FGSM(eps=0.1)(model, x, y)
        clean, moved = (cam(model.feature_map(v), model.head)[0][rows, y] for v in (x, near))
    return float((clean - moved).abs().flatten(1).sum(1).mean())


def teacher_divergence(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        logits = model(x)
        targets = functional.softmax(Teacher(logits.shape[1])(x) / 50, 1)
        return float((targets * (targets.log() - functional.log_softmax(logits / 50, 1))).sum(1).mean())


def attribution_norm(model: nn.Module, x: Tensor, y: Tensor) -> float:
    near = FGSM(eps=0.15)(model, x, y)
    return float(path_attribution(model, x, near, y, 8).abs().flatten(1).sum(1).detach().mean())


MEASURES: dict[str, Callable[..., float]] = {
    "input_gradient_norm": input_gradient_norm,
    "certainty_gradient_norm": certainty_gradient_norm,
    "entropy_gradient_norm": entropy_gradient_norm,
    "logit_gradient_norm": logit_gradient_norm,
    "curvature": curvature,
    "jacobian_norm": jacobian_norm,
    "cross_lipschitz": cross_lipschitz,
    "attacked_accuracy": attacked_error,  # the error, so that less is better for all of them
    "map_discrepancy": map_discrepancy,
    "teacher_divergence": teacher_divergence,
    "attribution_norm": attribution_norm,
}


# --------------------------------------------------------------------------------------------------- checks


def taught(defence: Any) -> bool:
    """Say whether a defence, or one that it is made of, learns from a teacher."""
    parts = getattr(defence, "defences", ())
    return hasattr(defence, "teacher") or any(taught(part) for part in parts)


def terms(
    defence: Any, model: nn.Module, ctx: Context | None = HERE, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    return defence(model, pictures(N, dtype), LABELS, ctx)


def check_terms(defence: Any, world: World) -> None:
    for dtype in (torch.float32, torch.float64):
        for ctx in (HERE, None if not taught(defence) else NOWHERE, Context(progress=0.0, network=HERE.network)):
            found = terms(defence, smooth(3, dtype).train(), ctx, dtype)
            assert isinstance(found, dict)
            assert "cross_entropy" in found, f'the plain loss is called "cross_entropy"; the terms are {list(found)}'
            for name, value in found.items():
                assert value.shape == (), f"{name} must be a scalar"
                assert value.dtype == dtype, f"{name} must keep the dtype of the images"
                assert math.isfinite(value.item()), f"{name} is {value.item()}"
    if taught(defence):
        with pytest.raises(InputError, match="teacher"):
            terms(defence, smooth(), None)
        return
    total = sum(terms(defence, smooth(), None).values())
    explicit = sum(terms(defence, smooth(), Context(progress=1.0, step=0, seed=0)).values())
    assert torch.equal(total, explicit), "ctx None is progress 1, step 0, seed 0"


def check_weight_zero_is_plain_training(defence: Any, world: World) -> None:
    if not hasattr(defence, "weight"):
        return
    found = terms(dataclasses.replace(defence, weight=0.0), smooth())
    if "adversarial_cross_entropy" in found:
        return  # not a pure penalty: the loss itself is on other images
    mean = float(sum(terms(Standard(), smooth()).values()))
    whole = N if getattr(defence, "normalisation", "") == "paper_sum" else 1
    assert float(sum(found.values())) == pytest.approx(whole * mean, rel=1e-9), "weight 0 must be plain training"


def check_gradients_reach_the_parameters(defence: Any, world: World) -> None:
    model = smooth().train()
    sum(terms(defence, model).values()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, f"no gradient reaches {name}"
        assert bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite"
        assert bool((p.grad != 0).any()), f"the gradient of {name} is zero"
    model = smooth().train()
    for name, value in terms(defence, model).items():
        if value.item() != 0:
            grads = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
            assert any(g is not None and bool((g != 0).any()) for g in grads), f"{name} trains nothing"


def check_gradients_agree_with_finite_differences(defence: Any, world: World) -> None:
    defence = substituted(defence, "attack", Offset())
    model = smooth()
    sum(terms(defence, model).values()).backward()
    directions = {
        name: Stream(derive(1, name)).normal(torch.empty(1, 0, dtype=torch.float64), tuple(p.shape))[0]
        for name, p in model.named_parameters()
    }
    slope = sum(float((p.grad * directions[name]).sum()) for name, p in model.named_parameters())
    weights = copy.deepcopy(model.state_dict())

    def loss(step: float) -> float:
        model.load_state_dict(weights)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p += step * directions[name]
        return float(sum(terms(defence, model).values()).detach())

    h = 1e-4
    expected = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    assert slope == pytest.approx(expected, rel=1e-4), "the gradient in the weights is not that of the loss"


def check_same_context_same_terms(defence: Any, world: World) -> None:
    model = smooth().train()
    first, second = terms(defence, model), terms(defence, model)
    torch.rand(2)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), f"{name} differs although the context is the same"


def check_disturbs_nothing(defence: Any, world: World) -> None:
    x = pictures(N, torch.float32)
    for training in (True, False):
        model = rough()
        model.dropout.p = 0.0  # dropout draws from the global generator, which the training loop seeds per step
        model.train(training)
        with undisturbed(model, x, LABELS, statistics=not training):
            defence(model, x, LABELS, HERE)
    leaf = x.clone().requires_grad_(True)
    with undisturbed(model, leaf, LABELS):
        defence(model, leaf, LABELS, HERE)


def check_attacks_inside_move_no_statistics(defence: Any, world: World) -> None:
    counts = []
    for method in (defence, substituted(defence, "attack", Offset())):
        model = rough().train()
        model.dropout.p = 0.0
        before = int(model.norm.num_batches_tracked)
        method(model, pictures(N, torch.float32), LABELS, HERE)
        counts.append(int(model.norm.num_batches_tracked) - before)
    assert counts[0] == counts[1], f"batch-norm statistics moved {counts[0]} times, {counts[1]} without the attack"


def check_refuses_what_is_no_input(defence: Any, world: World) -> None:
    model, x = smooth(), pictures(N)
    for bad in ((x * 255).to(torch.uint8), x[0], x - 0.5, x * 255, torch.full_like(x, torch.nan)):
        with pytest.raises(InputError, match="images must"):
            defence(model, bad, LABELS, HERE)
    for bad in (LABELS.double(), LABELS[:-1], LABELS + 1, LABELS - 1, LABELS[:, None].expand(N, 2)):
        with pytest.raises(InputError, match="labels"):
            defence(model, x, bad, HERE)


def check_says_what_it_moves(defence: Any, world: World) -> None:
    moves = getattr(defence, "moves", None)
    known = ", ".join(MEASURES)
    assert moves is not None, f"{type(defence).__name__} must say in `moves` what it is there to move: {known}"
    if name_of(defence) == "standard":
        assert moves == "nothing"
    else:
        assert moves in MEASURES, f"{type(defence).__name__}.moves is {moves!r}; it must be one of {known}"


def check_moves_what_it_is_there_to_move(defence: Any, world: World) -> None:
    if getattr(defence, "moves", "nothing") == "nothing":
        return
    measure = MEASURES[defence.moves]
    _, _, x, y = world.digits
    plain, defended = (measure(trained_on(method, world), x, y) for method in (Standard(), defence))
    assert math.isfinite(defended)
    assert defended < 0.85 * plain, f"{defence.moves}: {defended:.3g}, against {plain:.3g} after as many plain steps"


def trained_on(defence: Any, world: World, steps: int = 100) -> Trained:
    """Train the same half-trained network for a few steps with a defence."""
    model = copy.deepcopy(world.beginner).train()
    x, y, _, _ = world.digits
    optimiser = torch.optim.Adam(model.parameters(), lr=6e-3)
    for step in range(steps):
        rows = Stream(derive(8, step)).integers(torch.empty(64, 0), len(x))
        ctx = Context((step + 1) / steps, step, seed=3, positions=rows, network=lambda task: Teacher(10))
        optimiser.zero_grad()
        sum(defence(model, x[rows], y[rows], ctx).values()).backward()
        optimiser.step()
    return model.eval()
