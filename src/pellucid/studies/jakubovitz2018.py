"""Jakubovitz & Giryes 2018, "Improving DNN robustness to adversarial attacks using Jacobian regularization".

What the paper trains: TensorFlow's tutorial network on MNIST and a deeper one on CIFAR-10, without a defence, with FGSM
adversarial training, and with three penalties (input gradient, cross-Lipschitz, Jacobian): from the start ("regular"),
as post-processing of the finished undefended network, and together with adversarial training. What it measures:
accuracy, rho_adv (how far DeepFool has to move an image, Tables 2 to 4), the norm of the Jacobian at clean images and
at DeepFool's (Table 1), and accuracy under FGSM (Figure 1) and under the 1-pixel JSMA (Figure 2).
"""

from collections.abc import Mapping

from pellucid.studies.jakubovitz2018_choices import CHOICES, COMMON_CHOICES
from pellucid.studies.jakubovitz2018_claims import ADVERSARIAL, NONE, PENALTIES, after, combined
from pellucid.studies.jakubovitz2018_curves import Jakubovitz2018Curves
from pellucid.studies.jakubovitz2018_measured import autoattack, boundaries, clean, fgsm, jsma
from pellucid.studies.jakubovitz2018_networks import CONTROL, cifar_networks, networks
from pellucid.studies.jakubovitz2018_report import Jakubovitz2018Report
from pellucid.studies.jakubovitz2018_scales import SCALES, Half
from pellucid.studies.jakubovitz2018_tables import Jakubovitz2018Tables
from pellucid.tasks import Train

COVERED = ("J17", "J18", "J19", "L20", "L21", "L23")  # by the tables; the chapters say for themselves


def study(scale_name: str) -> Jakubovitz2018Report:
    """Return the whole study as one task."""
    scale, trained = SCALES[scale_name], networks(scale_name)
    tables = Jakubovitz2018Tables(
        scale=scale.name,
        labels=tuple(trained),
        networks=tuple(trained.values()),
        evaluations=clean(scale.mnist, trained.values()),
        boundaries=boundaries(scale.mnist, trained.values()),
    )
    return Jakubovitz2018Report(
        tables=tables,
        chapters=(
            _curves("MNIST", scale.mnist, trained, scale.mnist_instead, ("L22a", "L22b")),
            _curves("CIFAR-10", scale.cifar, cifar_networks(scale_name), scale.cifar_instead, ("L22c", "L22d")),
        ),
        choices=tuple(part for pair in (*CHOICES[scale.name], *COMMON_CHOICES) for part in pair),
    )


def _curves(
    name: str, half: Half, trained: Mapping[str, Train], instead: str, claims: tuple[str, str]
) -> Jakubovitz2018Curves:
    """Return Figures 1 and 2 of one data set: combinations under FGSM, single defences under JSMA, some under both."""
    singles = (NONE, ADVERSARIAL, *(after(penalty) for penalty in PENALTIES))
    every = (*singles, *(combined(penalty) for penalty in PENALTIES), CONTROL)
    strong = (NONE, ADVERSARIAL, after("input gradient"), after("Jacobian"), combined("Jacobian"))
    return Jakubovitz2018Curves(
        name=name,
        instead=instead,
        fgsm_labels=every,
        fgsm=fgsm(half, [trained[label] for label in every]),
        jsma_labels=singles,
        thetas=half.jsma,
        jsma=jsma(half, [trained[label] for label in singles]),
        autoattack_labels=strong,
        autoattacked=autoattack(half, [trained[label] for label in strong]),
        claims=claims,
        ahead=name != "MNIST",
    )
