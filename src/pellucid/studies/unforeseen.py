"""Boopathy et al. 2020, Table 2, the row "Normal": an undefended network under attacks that nobody trains against.

Gabor noise, snow, JPEG compression (linf, l2, l1) and fog at the eps that the authors ran, with the elastic
deformation of Kang et al. 2019 beside them; 200 steps towards a random wrong class, last iterate.
"""

from dataclasses import dataclass

from pellucid.attacks import JPEG, PGD, Elastic, Fog, Gabor, Snow
from pellucid.data import CIFAR10, Digits
from pellucid.defences import Standard
from pellucid.models import SmallCNN
from pellucid.optimisers import Adam
from pellucid.protocols import Attack, Data
from pellucid.studies.attacked_report import AttackedReport
from pellucid.studies.attacked_tables import UNPRINTED, AttackedTables
from pellucid.tasks import Evaluate, Explain, Train

STEPS = 200


@dataclass(frozen=True)
class Scale:
    """What differs between a minute on embedded digits and the paper's own run."""

    data: Data
    train_steps: int
    batch_size: int
    lr: float
    images: int
    shown: int


SCALES = {
    "smoke": Scale(Digits(), 300, 64, 1e-3, 40, 2),
    "small": Scale(CIFAR10(), 7000, 128, 1e-3, 200, 3),
    "paper": Scale(CIFAR10(), 70200, 128, 1e-3, 200, 3),
}

ATTACKS: dict[str, tuple[Attack, float]] = {  # with the accuracy that Table 2 prints
    "none": (PGD(eps=0.0, steps=1), UNPRINTED),
    "Gabor": (Gabor(eps=400, steps=STEPS, target="random"), 0.125),
    "Snow": (Snow(eps=2, steps=STEPS, target="random"), 0.0),
    "JPEG linf": (JPEG(ball="linf", eps=0.25, steps=STEPS, target="random"), 0.0),
    "JPEG l2": (JPEG(ball="l2", eps=8, steps=STEPS, target="random"), 0.03),
    "JPEG l1": (JPEG(ball="l1", eps=256, steps=STEPS, target="random"), 0.0),
    "Fog": (Fog(eps=2048, steps=STEPS, target="random"), UNPRINTED),
    "Elastic": (Elastic(eps=2, steps=STEPS, target="random"), UNPRINTED),
}

CHOICES = (
    ("Units", "eps in the units of Kang et al. 2019; the documentation of each attack says how they convert"),
    ("Images", "the first 200 test images; the authors drew 200 with a seed of their own"),
    ("Targets", "a random wrong class for each image; success is any prediction but the true label, as in the paper"),
    ("Iterate", "the last one, after all 200 steps"),
    (
        "Training",
        "at scale small 7,000 batches of 128 at learning rate 1e-3, for the paper's 70,200 at 1e-3, 1e-4 and 1e-5; at "
        "scale paper as many batches as the paper, all at 1e-3",
    ),
    ("Elastic", "in the authors' code but not in their table; eps 2 of Kang's calibrated values for CIFAR-10"),
)


def network(scale_name: str) -> Train:
    """Return the training of the undefended network."""
    scale = SCALES[scale_name]
    return Train(
        data=scale.data,
        model=SmallCNN(),
        defence=Standard(),
        optimiser=Adam(lr=scale.lr),
        steps=scale.train_steps,
        batch_size=scale.batch_size,
        log_every=250,
    )


def study(scale_name: str) -> AttackedReport:
    """Return the whole study as one task."""
    scale, trained = SCALES[scale_name], network(scale_name)
    return AttackedReport(
        heading="Attacks that nobody trains against",
        about="An undefended Small network of Boopathy et al. 2020 under unforeseen attacks (Table 2, row Normal).",
        tables=AttackedTables(
            scale=scale_name,
            networks=("normal",) * len(ATTACKS),
            attacks=tuple(ATTACKS),
            evaluations=tuple(
                Evaluate(
                    network=trained,
                    data=scale.data,
                    attack=attack,
                    images=scale.images,
                    chunk=100,
                    stop_when_fooled=False,
                )
                for attack, _ in ATTACKS.values()
            ),
            printed=tuple(printed for _, printed in ATTACKS.values()),
        ),
        pictures=tuple(
            Explain(network=trained, data=scale.data, attack=attack, interpreters=(), images=scale.shown)
            for attack, _ in ATTACKS.values()
        ),
        choices=tuple(part for pair in CHOICES for part in pair),
    )
