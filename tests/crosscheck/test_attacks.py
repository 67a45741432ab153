"""FGSM, its iterations and PGD against foolbox and ART (Adversarial Robustness Toolbox), where they coincide.

Images lie away from 0 and 1, so that the order of ball and box, in which ART differs, plays no part, but in the tests
that ask about it. Runs of 1, 2, 3, ... steps are compared, which are the iterates, as nothing is random. Pixels
whose gradient is under 1e-7 are left out: the sign of rounding noise is nobody's to predict.
"""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import FGSM, PGD, TGSM, IteratedFGSM, IteratedTGSM
from pellucid.maths.losses import cross_entropy
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive

STEPS = (1, 2, 3, 4, 5, 10)
NORMS: tuple[Literal["linf", "l2"], ...] = ("linf", "l2")
EPS, STEP = {"linf": 0.08, "l2": 0.6}, {"linf": 0.02, "l2": 0.15}


class Smooth(Classifier):
    def __init__(self) -> None:
        super().__init__(mean=0.4, std=0.5)
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return Stream(seed).normal(torch.empty(shape[0], 0), shape[1:])


@pytest.fixture(scope="module")
def model() -> Smooth:
    network = Smooth()
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(_numbers(*p.shape, seed=derive(1, name)))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    return (0.5 + 0.1 * torch.tanh(_numbers(12, 2, 8, 6, seed=2))), torch.arange(12) % 4


def steep(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
    return slope.abs() > 1e-7


def assert_alike(model: nn.Module, x: Tensor, y: Tensor, ours: Tensor, theirs: Tensor) -> None:
    counted = steep(model, x, y)
    assert float(counted.float().mean()) > 0.99, "too many pixels are left out to call this a comparison"
    assert float((ours - x).abs().max()) > 0.01, "nothing moved, so nothing is compared"
    gap = float(((ours - theirs).abs() * counted).max())
    assert gap <= 1e-5, f"the images differ by up to {gap}"


# ---------------------------------------------------------------------------------------------------- foolbox


@pytest.fixture(scope="module")
def foolbox() -> Any:
    return pytest.importorskip("foolbox")


def by_foolbox(foolbox: Any, attack: Any, model: nn.Module, x: Tensor, criterion: Any, eps: float) -> Tensor:
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    raw, _, _ = attack(wrapped, x, criterion, epsilons=eps)
    return raw


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.45])
def test_fgsm_is_foolbox(foolbox: Any, model: Smooth, batch: tuple[Tensor, Tensor], eps: float) -> None:
    x, y = batch
    theirs = by_foolbox(foolbox, foolbox.attacks.LinfFastGradientAttack(random_start=False), model, x, y, eps)
    assert_alike(model, x, y, FGSM(eps=eps)(model, x, y), theirs)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("norm", NORMS)
def test_pgd_is_foolbox(foolbox: Any, model: Smooth, batch: tuple[Tensor, Tensor], norm: str, steps: int) -> None:
    x, y = batch
    theirs = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[norm](abs_stepsize=STEP[norm], steps=steps, random_start=False)
    ours = PGD(norm=norm, eps=EPS[norm], step_size=STEP[norm], steps=steps, random_start=False)(model, x, y)
    assert_alike(model, x, y, ours, by_foolbox(foolbox, theirs, model, x, y, EPS[norm]))


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_at_the_edge_of_the_range_is_foolbox(
    foolbox: Any, model: Smooth, batch: tuple[Tensor, Tensor], norm: str
) -> None:
    x, y = (5 * (batch[0] - 0.5) + 0.5).clamp(0, 1), batch[1]
    assert bool(((x < EPS["linf"] / 2) | (x > 1 - EPS["linf"] / 2)).any())
    theirs = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[norm](abs_stepsize=STEP[norm], steps=10, random_start=False)
    ours = PGD(norm=norm, eps=EPS[norm], step_size=STEP[norm], steps=10, random_start=False)(model, x, y)
    assert_alike(model, x, y, ours, by_foolbox(foolbox, theirs, model, x, y, EPS[norm]))


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_pgd_is_foolbox(foolbox: Any, model: Smooth, batch: tuple[Tensor, Tensor], norm: str) -> None:
    x, y = batch
    aim = (y + 1) % 4
    theirs = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[norm](abs_stepsize=STEP[norm], steps=5, random_start=False)
    attack = PGD(norm=norm, eps=EPS[norm], step_size=STEP[norm], steps=5, random_start=False)
    criterion = foolbox.criteria.TargetedMisclassification(aim)
    assert_alike(
        model,
        x,
        aim,
        attack(model, x, y, target=aim),
        by_foolbox(foolbox, theirs, model, x, criterion, EPS[norm]),
    )
    by_rule = PGD(norm=norm, eps=EPS[norm], step_size=STEP[norm], steps=5, random_start=False, target="next")
    assert torch.equal(by_rule(model, x, y), attack(model, x, y, target=aim))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("steps", STEPS)
def test_iterated_fgsm_is_foolbox(
    foolbox: Any, model: Smooth, batch: tuple[Tensor, Tensor], steps: int, targeted: bool
) -> None:
    x, y = batch
    aim = (y + 1) % 4
    theirs = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=0.02, steps=steps, random_start=False)
    if targeted:
        criterion = foolbox.criteria.TargetedMisclassification(aim)
        ours = IteratedFGSM(eps=0.02, steps=steps, radius=0.08, target="next")(model, x, y)
        assert_alike(model, x, aim, ours, by_foolbox(foolbox, theirs, model, x, criterion, 0.08))
        free = IteratedTGSM(eps=0.02, steps=steps)(model, x, y)
        assert_alike(model, x, aim, free, by_foolbox(foolbox, theirs, model, x, criterion, 1.0))
    else:
        ours = IteratedFGSM(eps=0.02, steps=steps, radius=0.08)(model, x, y)
        assert_alike(model, x, y, ours, by_foolbox(foolbox, theirs, model, x, y, 0.08))
        free = IteratedFGSM(eps=0.02, steps=steps)(model, x, y)
        assert_alike(model, x, y, free, by_foolbox(foolbox, theirs, model, x, y, 1.0))


# -------------------------------------------------------------------------------------------------------- ART


@pytest.fixture(scope="module")
def art(model: Smooth) -> Any:
    pytest.importorskip("art")
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model,
        loss=functional.cross_entropy,
        input_shape=(2, 8, 6),
        nb_classes=4,
        clip_values=(0, 1),
        device_type="cpu",
    )


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_fgsm_is_art(art: Any, model: Smooth, batch: tuple[Tensor, Tensor], eps: float, targeted: bool) -> None:
    from art.attacks.evasion import FastGradientMethod

    x, y = batch
    goal = (y + 1) % 4 if targeted else y
    theirs = FastGradientMethod(art, eps=eps, targeted=targeted, num_random_init=0)
    ours = FGSM(eps=eps)(model, x, y, target=goal if targeted else None)
    assert_alike(model, x, goal, ours, torch.from_numpy(theirs.generate(x.numpy(), goal.numpy())))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("norm", NORMS)
def test_pgd_is_art(art: Any, model: Smooth, batch: tuple[Tensor, Tensor], norm: str, steps: int) -> None:
    from art.attacks.evasion import ProjectedGradientDescent

    x, y = batch
    theirs = ProjectedGradientDescent(
        art,
        norm="inf" if norm == "linf" else 2,
        eps=EPS[norm],
        eps_step=STEP[norm],
        max_iter=steps,
        num_random_init=0,
        verbose=False,
    )
    ours = PGD(norm=norm, eps=EPS[norm], step_size=STEP[norm], steps=steps, random_start=False)(model, x, y)
    assert_alike(model, x, y, ours, torch.from_numpy(theirs.generate(x.numpy(), y.numpy())))


@pytest.mark.parametrize("steps", STEPS)
def test_targeted_pgd_is_art(art: Any, model: Smooth, batch: tuple[Tensor, Tensor], steps: int) -> None:
    from art.attacks.evasion import ProjectedGradientDescent

    x, y = batch
    aim = (y + 1) % 4
    for norm in NORMS:
        theirs = ProjectedGradientDescent(
            art,
            norm="inf" if norm == "linf" else 2,
            eps=EPS[norm],
            eps_step=STEP[norm],
            max_iter=steps,
            targeted=True,
            num_random_init=0,
            verbose=False,
        )
        ours = PGD(norm=norm, eps=EPS[norm], step_size=STEP[norm], steps=steps, random_start=False, target="next")(
            model, x, y
        )
        assert_alike(model, x, aim, ours, torch.from_numpy(theirs.generate(x.numpy(), aim.numpy())))


@pytest.mark.parametrize("steps", STEPS)
def test_pgd_with_the_box_before_the_ball_is_art_at_the_edge_of_the_range(
    art: Any, model: Smooth, batch: tuple[Tensor, Tensor], steps: int
) -> None:
    """ART clips every step to the range, then projects onto the ball."""
    from art.attacks.evasion import ProjectedGradientDescent

    x, y = (5 * (batch[0] - 0.5) + 0.5).clamp(0, 1), batch[1]
    theirs = ProjectedGradientDescent(
        art, norm=2, eps=EPS["l2"], eps_step=STEP["l2"], max_iter=steps, num_random_init=0, verbose=False
    )
    attack = PGD(norm="l2", eps=EPS["l2"], step_size=STEP["l2"], steps=steps, random_start=False, order="box_ball")
    ours, expected = attack(model, x, y), torch.from_numpy(theirs.generate(x.numpy(), y.numpy()))
    assert_alike(model, x, y, ours, expected)
    if steps == 10:
        other = PGD(norm="l2", eps=EPS["l2"], step_size=STEP["l2"], steps=steps, random_start=False)(model, x, y)
        assert float((other - expected).abs().max()) > 1e-3, "the order plays no part here"


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("steps", STEPS)
def test_iterated_fgsm_is_art(
    art: Any, model: Smooth, batch: tuple[Tensor, Tensor], steps: int, targeted: bool
) -> None:
    from art.attacks.evasion import BasicIterativeMethod

    x, y = batch
    goal = (y + 1) % 4 if targeted else y
    for radius in (0.08, 1.0):
        theirs = BasicIterativeMethod(art, eps=radius, eps_step=0.02, max_iter=steps, targeted=targeted, verbose=False)
        if radius == 1.0 and targeted:
            ours = IteratedTGSM(eps=0.02, steps=steps)(model, x, y)
        else:
            attack = IteratedFGSM(eps=0.02, steps=steps, radius=None if radius == 1.0 else radius)
            ours = attack(model, x, y, target=goal if targeted else None)
        assert_alike(model, x, goal, ours, torch.from_numpy(theirs.generate(x.numpy(), goal.numpy())))


def test_tgsm_is_art(art: Any, model: Smooth, batch: tuple[Tensor, Tensor]) -> None:
    from art.attacks.evasion import FastGradientMethod

    x, y = batch
    aim = (y + 1) % 4
    theirs = FastGradientMethod(art, eps=0.1, targeted=True, num_random_init=0)
    expected = torch.from_numpy(theirs.generate(x.numpy(), aim.numpy()))
    assert_alike(model, x, aim, TGSM(eps=0.1)(model, x, y), expected)
