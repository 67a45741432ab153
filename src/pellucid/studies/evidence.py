"""Do maps point at the evidence? Every interpreter scored against the exact mask of the object, defence by defence.

Letters of fonts that no network was trained on, in clutter and noise (the data set `glyphs`), stand in for notMNIST
offline; where the letter is, the evidence is. Not a paper's experiment: it says how far the papers' maps can be
trusted, network by network.
"""

from dataclasses import dataclass
from typing import Any

from pellucid.attacks import PGD
from pellucid.data import Glyphs
from pellucid.defences import AdversarialTraining, DoubleBackprop, Standard
from pellucid.interpreters import AttackDifference, Gradient, IntegratedGradients, SmoothGrad
from pellucid.models import SmallCNN
from pellucid.optimisers import Adam
from pellucid.protocols import Defence, Interpreter
from pellucid.spec import entries
from pellucid.studies.evidence_report import EvidenceReport
from pellucid.studies.evidence_tables import EvidenceTables
from pellucid.tasks import Explain, Train
from pellucid.tasks.locating import Evidence


@dataclass(frozen=True)
class Scale:
    """How much data, how long a training, how many images."""

    data: Any
    steps: int
    images: int
    samples: int


SCALES = {
    "smoke": Scale(Glyphs(train=2000, validation=200, test=200), 150, 40, 10),
    "small": Scale(Glyphs(), 1500, 1000, 100),
    "paper": Scale(Glyphs(), 10000, 2000, 100),
}
DEFENCES: dict[str, Defence] = {
    "undefended": Standard(),
    "PGD training": AdversarialTraining(attack=PGD(eps=0.05, steps=5)),
    "double backprop": DoubleBackprop(weight=1),
}

CHOICES = (
    ("Data", "glyphs at 28x28, grey; the fonts of the test part are in no other part"),
    ("Networks", "the Small network of Boopathy et al., which can have every kind of map; batches of 64, Adam at 2e-3"),
    ("Defences", "PGD adversarial training at eps .05 (5 steps), double backpropagation at weight 1"),
    ("Images", "the first of the test part, right or wrong; the table also has those classified right alone"),
    ("Maps", "of the true class, by every registered interpreter with its defaults, magnitudes of signed maps"),
    (
        "Beside them",
        "SmoothGrad of integrated gradients (10 steps, a fifth of the samples), the gradient of the certainty term of "
        "Ross & Doshi-Velez, and the difference of a PGD attack in l2 (eps 2), since steps along signs change all "
        "pixels alike",
    ),
)


def interpreters(samples: int) -> dict[str, Interpreter]:
    """Return every registered interpreter with its defaults, and some that are made of others, by their titles."""
    every: dict[str, Interpreter] = {name.replace("_", " "): cls() for name, cls in entries("interpreter")}
    return every | {
        "smooth grad": SmoothGrad(samples=samples),
        "smooth grad of integrated gradients": SmoothGrad(inner=IntegratedGradients(steps=10), samples=samples // 5),
        "gradient of certainty": Gradient(score="certainty"),
        "attack difference in l2": AttackDifference(attack=PGD(norm="l2", eps=2, steps=20)),
    }


def study(scale_name: str) -> EvidenceReport:
    """Return the whole study as one task."""
    scale, named = SCALES[scale_name], interpreters(SCALES[scale_name].samples)
    methods = tuple(named.values())
    networks = {
        label: Train(
            data=scale.data,
            model=SmallCNN(),
            defence=defence,
            optimiser=Adam(lr=2e-3),
            steps=scale.steps,
            batch_size=64,
            log_every=max(1, scale.steps // 30),
        )
        for label, defence in DEFENCES.items()
    }
    return EvidenceReport(
        tables=EvidenceTables(
            scale=scale_name,
            networks=tuple(networks),
            interpreters=tuple(named),
            measured=tuple(
                Evidence(network=network, data=scale.data, interpreters=methods, images=scale.images)
                for network in networks.values()
            ),
        ),
        pictures=tuple(
            Explain(network=network, data=scale.data, interpreters=methods, images=2) for network in networks.values()
        ),
        choices=tuple(part for pair in CHOICES for part in pair),
    )
