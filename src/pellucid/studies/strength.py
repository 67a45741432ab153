"""How much of a network's apparent robustness a stronger attack takes away.

Not a paper's experiment but the question every table of one raises: the networks of the Ross & Doshi-Velez study
(undefended, adversarially trained, gradient-regularised) under FGSM, PGD and APGD, and under all of AutoAttack.
"""

from dataclasses import dataclass

from pellucid.attacks import APGD, FGSM, PGD, AutoAttack
from pellucid.protocols import Attack
from pellucid.studies import ross2018
from pellucid.studies.attacked_report import AttackedReport
from pellucid.studies.attacked_tables import AttackedTables
from pellucid.tasks import Evaluate

EPSILONS = (0.0, 0.1, 0.2, 0.3)
LARGEST = EPSILONS[-1]


@dataclass(frozen=True)
class Scale:
    """How many images, and where they come from: those of the Ross & Doshi-Velez study at the same scale."""

    images: int
    images_autoattack: int


SCALES = {"smoke": Scale(60, 10), "small": Scale(1000, 300), "paper": Scale(10000, 1000)}

ATTACKS: dict[str, Attack] = {
    "FGSM": FGSM(eps=LARGEST),
    "PGD-40": PGD(eps=LARGEST, steps=40, step_size=0.01),
    "PGD-200": PGD(eps=LARGEST, steps=200, step_size=0.01, random_start=False),
    "APGD": APGD(norm="linf", eps=LARGEST),
    "AutoAttack": AutoAttack(norm="linf", eps=LARGEST),
}

CHOICES = (
    ("Networks", "those of the study ross2018 at this scale; of several lambdas the largest, the paper's for MNIST"),
    (
        "White-box accuracy",
        "an image that any iterate fools counts as fooled, and one that a smaller eps fooled is not attacked again",
    ),
    ("PGD-40", "Madry et al. 2018: 40 steps of 0.01 from a random start in the ball"),
    ("PGD-200", "Boopathy et al. 2020: 200 steps of 0.01 from the clean image"),
    ("APGD", "Croce & Hein 2020: 100 steps on the cross-entropy, one random start"),
    (
        "AutoAttack",
        "the standard version: APGD on cross-entropy and targeted DLR, targeted FAB, Square (5,000 queries)",
    ),
)


def study(scale_name: str) -> AttackedReport:
    """Return the whole study as one task."""
    scale, tables = SCALES[scale_name], ross2018.study(scale_name).tables
    trained = dict(zip(tables.labels, tables.networks))
    regularised = [label for label in trained if label.startswith("grad")][-1]
    networks = {label: trained[label] for label in ("normal", "adv. trained", regularised)}
    data = ross2018.SCALES[scale_name].data
    return AttackedReport(
        heading="How strong the attack, how robust the network",
        about=f"Robust accuracy of three networks under attacks of growing strength, eps up to {LARGEST} (linf).",
        tables=AttackedTables(
            scale=scale_name,
            networks=tuple(label for label in networks for _ in ATTACKS),
            attacks=tuple(ATTACKS) * len(networks),
            evaluations=tuple(
                Evaluate(
                    network=network,
                    data=data,
                    attack=attack,
                    epsilons=EPSILONS,
                    images=scale.images_autoattack if name == "AutoAttack" else scale.images,
                    chunk=100,
                )
                for network in networks.values()
                for name, attack in ATTACKS.items()
            ),
        ),
        choices=tuple(part for pair in CHOICES for part in pair),
    )
