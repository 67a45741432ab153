"""The networks of Ross & Doshi-Velez 2018: six kinds of training on each of three data sets.

"normal", "distilled" (defensive distillation at T = 50, used at T = 1), "adv. trained" (FGSM, eps .3), "grad. reg. (y)"
(double backpropagation), "grad. reg. (1/K)" (certainty insensitivity), and on SVHN "both defences". Where there are
several values of lambda, the network is the one that the paper's rule selects on validation images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.attacks import FGSM
from pellucid.data.units import converted_eps, converted_weight
from pellucid.defences import (
    AdversarialTraining,
    CertaintyPenalty,
    Distillation,
    DistilledLabelPenalty,
    DoubleBackprop,
    EntropyPenalty,
    Standard,
    Sum,
)
from pellucid.models import RossCNN
from pellucid.optimisers import Adam
from pellucid.protocols import Data, Defence, ModelSpec
from pellucid.tasks import Evaluate, Selection, Train
from pellucid.train import Precision

EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # in the units of the data
CODE_UNITS = 512  # lambda of the authors' code = 2 B lambda of equation 6, B = 256
TRAINED_EPS, WATCHED_EPS, TEMPERATURE = 0.3, 0.2, 50.0
TEACHER_STEPS = 10_000  # at which the authors' code stops the teacher
CHOOSING = (0.1, 0.2, 0.3)  # eps of the rule that selects lambda
NORMAL, DISTILLED, ADVERSARIAL = "normal", "distilled", "adv. trained"
LABEL_PENALTY, CERTAINTY, BOTH = "grad. reg. (y)", "grad. reg. (1/K)", "both defences"


@dataclass(frozen=True)
class Domain:
    """One of the three data sets, or what stands in for it.

    `range` are the ends of the values that the paper's eps and lambda are meant for, of which [0, 1] is our form. The
    lambdas are those of equation 6 in these units. `images` are the test images that are measured.
    """

    name: str
    data: Data
    images: int
    lambdas: tuple[float, ...]
    certainty: tuple[float, ...]
    both: tuple[float, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)
    model: RossCNN = RossCNN()  # noqa: RUF009 - a frozen description
    stands_in: str = ""

    def eps(self, eps: float) -> float:
        """Return an eps of the paper in units of [0, 1]."""
        return converted_eps(eps, self.range).ours

    def grid(self, epsilons: Sequence[float] = EPSILONS) -> tuple[float, ...]:
        """Return several of them."""
        return tuple(self.eps(eps) for eps in epsilons)

    def weight(self, weight: float) -> float:
        """Return a lambda of equation 6 in units of [0, 1]."""
        return converted_weight(weight, self.range).ours


@dataclass(frozen=True)
class Schedule:
    """How long, and how, the networks of one figure are trained."""

    steps: int
    batch_size: int
    lr: float
    log_every: int
    precision: Precision = "float32"
    batches: str = "separate"  # of clean and adversarial images


def trained(
    domain: Domain, schedule: Schedule, defence: Defence, model: ModelSpec | None = None, seed: int = 0, steps: int = 0
) -> Train:
    """Return the training of one network; FGSM accuracy is logged at eps .2, as in the paper's Figures 7 and 8."""
    return Train(
        data=domain.data,
        model=model or domain.model,
        defence=defence,
        optimiser=Adam(lr=schedule.lr, eps=1e-4, eps_hat=True),
        steps=steps or schedule.steps,
        batch_size=schedule.batch_size,
        log_every=schedule.log_every,
        precision=schedule.precision,
        watch=FGSM(eps=domain.eps(WATCHED_EPS)),
        seed=seed,
    )


def adversarial(domain: Domain, schedule: Schedule, share: float = 0.5) -> AdversarialTraining:
    """Return FGSM training at eps .3 of the data's units, against the network's own predictions."""
    attack = FGSM(eps=domain.eps(TRAINED_EPS), labels="predicted", mode="train")
    batches: Any = schedule.batches
    return AdversarialTraining(attack=attack, share=share, batches=batches)


def teacher(domain: Domain, schedule: Schedule) -> Train:
    """Return the network whose softened predictions the distilled one learns."""
    steps = min(schedule.steps, TEACHER_STEPS)
    return trained(domain, schedule, Standard(temperature=TEMPERATURE), steps=steps)


def both_defences(domain: Domain, schedule: Schedule, weight: float) -> Sum:
    """Return 1/2 [CE(x) + penalty(x) + CE(x')], as the authors' code has it."""
    parts = (DoubleBackprop(weight=domain.weight(weight)), adversarial(domain, schedule, share=1.0))
    return Sum(defences=parts, weights=(0.5, 0.5))


def networks(domain: Domain, schedule: Schedule, chosen_from: int | None = None) -> dict[str, Any]:
    """Return the networks of a data set by the names of the figures; `chosen_from` images decide between lambdas."""
    normal = trained(domain, schedule, Standard())

    def select(defences: list[Defence]) -> Any:
        candidates = tuple(trained(domain, schedule, defence) for defence in defences)
        if len(candidates) == 1:
            return candidates[0]
        grid = domain.grid(CHOOSING)
        attack = FGSM(eps=max(grid))
        return Selection(
            candidates=candidates,
            normal=normal,
            data=domain.data,
            attack=attack,
            epsilons=grid,
            images=chosen_from,
            chunk=CHUNK,
        )

    found = {
        NORMAL: normal,
        DISTILLED: trained(domain, schedule, Distillation(teacher=teacher(domain, schedule), temperature=TEMPERATURE)),
        ADVERSARIAL: trained(domain, schedule, adversarial(domain, schedule)),
        LABEL_PENALTY: select([DoubleBackprop(weight=domain.weight(weight)) for weight in domain.lambdas]),
        CERTAINTY: select([CertaintyPenalty(weight=domain.weight(weight)) for weight in domain.certainty]),
    }
    if domain.both:
        found[BOTH] = select([both_defences(domain, schedule, weight) for weight in domain.both])
    return found


CHUNK = 200  # images at a time, which a small cache holds


def penalties(domain: Domain, weight: float, taught_by: Any) -> dict[str, Defence]:
    """Return the four penalties of Figure 9 at one lambda, by the cross-entropy whose gradient they punish."""
    ours = domain.weight(weight)
    return {
        "H(y)": DoubleBackprop(weight=ours),
        "H(1/K)": CertaintyPenalty(weight=ours),
        "H(ydistilled)": DistilledLabelPenalty(weight=ours, teacher=taught_by, temperature=TEMPERATURE),
        "H(yhat)": EntropyPenalty(weight=ours),
    }


def penalised(domain: Domain, schedule: Schedule, weights: Sequence[float], taught_by: Any) -> dict[str, list[Train]]:
    """Return Figure 9's networks: for each of the four penalties one a lambda."""
    found: dict[str, list[Train]] = {}
    for weight in weights:
        for name, defence in penalties(domain, weight, taught_by).items():
            found.setdefault(name, []).append(trained(domain, schedule, defence))
    return found


def over_seeds(domain: Domain, schedule: Schedule, seeds: Sequence[int]) -> dict[int, tuple[Train, Train]]:
    """Return an undefended network and one of double backpropagation (its largest lambda) for seed 0 and more."""
    weight = domain.weight(max(domain.lambdas))
    pair = (Standard(), DoubleBackprop(weight=weight))
    return {seed: _pair(domain, schedule, pair, seed) for seed in (0, *seeds)}


def _pair(domain: Domain, schedule: Schedule, pair: tuple[Defence, Defence], seed: int) -> tuple[Train, Train]:
    plain, regularised = (trained(domain, schedule, defence, seed=seed) for defence in pair)
    return plain, regularised


def transfer(domain: Domain, named: dict[str, Any], maker: str, attack: Any) -> Evaluate:
    """Return what all networks make of one's examples, at every eps of the figures."""
    return Evaluate(
        network=named[maker],
        judges=tuple(task for label, task in named.items() if label != maker),
        data=domain.data,
        attack=attack,
        epsilons=domain.grid(),
        images=domain.images,
        chunk=CHUNK,
    )
