"""The races: our attack beside the same one of each peer that is installed."""

import argparse
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from races import Contender, Race
from torch import Tensor, nn

from pellucid.attacks import APGD, JSMA, PGD, DeepFool, Square
from pellucid.data import Digits
from pellucid.defences import AdversarialTraining, Standard
from pellucid.metrics import predict
from pellucid.models import SmallCNN, load_classifier
from pellucid.optimisers import Adam
from pellucid.store import Store
from pellucid.tasks import Options, Train, run

Pair = tuple[nn.Module, nn.Module, Tensor, Tensor]
RACES: dict[str, Callable[..., list[Race]]] = {}


def peer(name: str) -> Any:
    """Return a library, None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


foolbox, torchattacks, art = peer("foolbox"), peer("torchattacks"), peer("art.attacks.evasion")


def networks(given: argparse.Namespace) -> Pair:
    """Return an undefended and a robust network, and the test images that both classify rightly."""
    data, made = Digits(), []
    for defence in (Standard(), AdversarialTraining(attack=PGD(eps=0.15, steps=4, mode="train"), batches="together")):
        task = Train(data=data, model=SmallCNN(), defence=defence, optimiser=Adam(lr=2e-3), steps=400, batch_size=64)
        options = Options(device=given.device, threads=given.threads)
        network = load_classifier(run(task, Store(given.store), options).folder).to(given.device)
        made.append(network.eval().requires_grad_(False))
    split = data.load("test")
    x, y = split.images(slice(None)).to(given.device), split.labels.to(given.device)
    right = (predict(made[0], x) == y) & (predict(made[1], x) == y)
    return made[0], made[1], x[right], y[right]


def race(make: Callable[..., list[Race]]) -> Callable[..., list[Race]]:
    """Register races under the name of the function that makes them."""
    RACES[make.__name__] = make
    return make


def known(**contenders: Contender | None) -> dict[str, Contender]:
    """Return the contenders that are there."""
    return {name.replace("_", " "): run for name, run in contenders.items() if run is not None}


# ------------------------------------------------------------------------------------------------------- wrapping


def by_foolbox(attack: Callable[[], Any], eps: float | None) -> Contender | None:
    """Return a foolbox attack as a contender."""
    if foolbox is None:
        return None

    def attacked(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        found: Tensor = attack()(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=eps)[1]
        return found

    return attacked


def by_art(attack: Callable[[Any], Any], targets: Callable[[Tensor], Tensor] | None = None) -> Contender | None:
    """Return an attack of the Adversarial Robustness Toolbox as a contender; arrays go to the host and back."""
    if art is None:
        return None
    from art.estimators.classification import PyTorchClassifier

    def attacked(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        loss, shape = nn.CrossEntropyLoss(), tuple(x.shape[1:])
        device = "gpu" if x.is_cuda else "cpu"  # it moves the network there
        wrapped = PyTorchClassifier(model, loss, shape, 10, clip_values=(0, 1), device_type=device)
        labels = np.eye(10, dtype=np.float32)[(y if targets is None else targets(y)).cpu().numpy()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = attack(wrapped).generate(x.cpu().numpy(), y=labels)
        return torch.from_numpy(made).to(x)

    return attacked


def by_torchattacks(attack: Callable[[nn.Module], Any]) -> Contender | None:
    """Return an attack of torchattacks as a contender."""
    if torchattacks is None:
        return None

    def attacked(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made: Tensor = attack(model)(x, y)
        return made

    return attacked


# ---------------------------------------------------------------------------------------------------------- races


@race
def jsma(undefended: nn.Module, robust: nn.Module, x: Tensor, y: Tensor) -> list[Race]:
    """Pixel pairs towards the next class; ART's rule (two largest slopes) is another one."""
    gamma, theta = 0.1, 1.0

    def following(labels: Tensor) -> Tensor:
        return (labels + 1) % 10

    contenders = known(
        pellucid=lambda model, a, b: JSMA(theta=theta, gamma=gamma)(model, a, b, target=following(b)),
        torchattacks=by_torchattacks(lambda model: torchattacks.JSMA(model, theta=theta, gamma=gamma)),
        ART_another_rule=by_art(
            lambda wrapped: art.SaliencyMapMethod(wrapped, theta=theta, gamma=gamma, batch_size=64, verbose=False),
            following,
        ),
    )
    found = []
    for label, network in (("undefended", undefended), ("robust", robust)):
        for n in (1, 8, 32):
            found.append(Race(f"jsma {label} 28x28 batch {n}", network, x[:n], y[:n], contenders, following))
    wide = SmallCNN().build(3, (32, 32), 10).to(x.device).eval().requires_grad_(False)
    colour = nn.functional.interpolate(x[:2], (32, 32), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    few = known(
        pellucid=lambda model, a, b: JSMA(theta=theta, steps=8)(model, a, b, target=following(b)),
        torchattacks=by_torchattacks(lambda model: torchattacks.JSMA(model, theta=theta, gamma=16.5 / 3072)),
    )
    found.append(Race("jsma untrained 3x32x32 batch 2", wide, colour, y[:2], few, following, "8 steps"))
    return found


@race
def deepfool(undefended: nn.Module, robust: nn.Module, x: Tensor, y: Tensor) -> list[Race]:
    """The nearest boundary, 10 classes, 50 steps at most."""
    contenders = known(
        pellucid=lambda model, a, b: DeepFool()(model, a, b),
        foolbox=by_foolbox(lambda: foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02), None),
        ART=by_art(lambda wrapped: art.DeepFool(wrapped, 50, 0.02, nb_grads=10, batch_size=64, verbose=False)),
        torchattacks=by_torchattacks(lambda model: torchattacks.DeepFool(model, steps=50, overshoot=0.02)),
    )
    return [
        Race(f"deepfool {label} batch 64", network, x[:64], y[:64], contenders)
        for label, network in (("undefended", undefended), ("robust", robust))
    ]


def _pgd(eps: float, steps: int = 40) -> dict[str, Contender]:
    step = eps / 8

    def ours(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = PGD(eps=eps, steps=steps, step_size=step, random_start=False)
        return attack(model, x, y, stop_when_fooled=True)

    return known(
        pellucid=ours,
        foolbox=by_foolbox(lambda: foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps, random_start=False), eps),
        ART=by_art(
            lambda wrapped: art.ProjectedGradientDescentPyTorch(
                wrapped, eps=eps, eps_step=step, max_iter=steps, batch_size=256, verbose=False
            )
        ),
        torchattacks=by_torchattacks(
            lambda model: torchattacks.PGD(model, eps=eps, alpha=step, steps=steps, random_start=False)
        ),
    )


@race
def pgd(undefended: nn.Module, robust: nn.Module, x: Tensor, y: Tensor) -> list[Race]:
    """Accuracy under 40 steps: an undefended network, one that keeps about half of it, and one where nothing falls."""
    x, y = x[:256], y[:256]
    half = half_robust(robust, x, y)
    return [
        Race("pgd undefended", undefended, x, y, _pgd(0.2), note="eps 0.2, 40 steps of eps/8, no random start"),
        Race("pgd robust", robust, x, y, _pgd(half), note=f"eps {half:g}, where about half of the images stand"),
        Race("pgd nothing falls", robust, x, y, _pgd(1e-4), note="eps 0.0001"),
    ]


def half_robust(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the eps, in hundredths, at which PGD leaves most nearly half of the images right."""

    def standing(eps: float) -> float:
        made = PGD(eps=eps, steps=40, step_size=eps / 8, random_start=False)(network, x, y, stop_when_fooled=True)
        return float((predict(network, made) == y).double().mean())

    low, high = 0.04, 0.44  # robust accuracy falls with eps: halve the interval
    for _ in range(4):
        middle = (low + high) / 2
        low, high = (middle, high) if standing(middle) > 0.5 else (low, middle)
    return round((low + high) / 2, 2)


@race
def apgd(undefended: nn.Module, robust: nn.Module, x: Tensor, y: Tensor) -> list[Race]:
    """100 steps on the cross-entropy."""
    x, y = x[:256], y[:256]

    def contenders(eps: float) -> dict[str, Contender]:
        def ours(model: nn.Module, a: Tensor, b: Tensor) -> Tensor:
            return APGD(norm="linf", eps=eps)(model, a, b, stop_when_fooled=True)

        theirs = by_torchattacks(lambda model: torchattacks.APGD(model, eps=eps, steps=100, seed=0))
        return known(pellucid=ours, torchattacks=theirs)

    half = half_robust(robust, x, y)
    return [
        Race("apgd undefended", undefended, x, y, contenders(0.2), note="eps 0.2"),
        Race("apgd robust", robust, x, y, contenders(half), note=f"eps {half:g}"),
    ]


@race
def square(undefended: nn.Module, robust: nn.Module, x: Tensor, y: Tensor) -> list[Race]:
    """500 queries."""
    x, y = x[:128], y[:128]

    def contenders(eps: float) -> dict[str, Contender]:
        def ours(model: nn.Module, a: Tensor, b: Tensor) -> Tensor:
            return Square(norm="linf", eps=eps, queries=500)(model, a, b, stop_when_fooled=True)

        theirs = by_torchattacks(lambda model: torchattacks.Square(model, eps=eps, n_queries=500, seed=0))
        return known(pellucid=ours, torchattacks=theirs)

    half = half_robust(robust, x, y)
    return [
        Race("square undefended", undefended, x, y, contenders(0.2), note="eps 0.2, 500 queries"),
        Race("square robust", robust, x, y, contenders(half), note=f"eps {half:g}, 500 queries"),
    ]
