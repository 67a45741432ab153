"""Jakubovitz & Giryes 2018, "Improving DNN robustness to adversarial attacks using Jacobian regularization".

What the paper trains: TensorFlow's tutorial network on MNIST and a deeper one on CIFAR-10, without a defence, with FGSM
adversarial training, and with three penalties (input gradient, cross-Lipschitz, Jacobian): from the start ("regular"),
as post-processing of the finished undefended network, and together with adversarial training. What it measures:
accuracy, rho_adv (how far DeepFool has to move an image, Tables 2 to 4), the norm of the Jacobian at clean images and
at DeepFool's (Table 1), and accuracy under FGSM (Figure 1) and under the 1-pixel JSMA (Figure 2).
"""

from pellucid.studies.jakubovitz2018_choices import CHOICES, COMMON_CHOICES
from pellucid.studies.jakubovitz2018_measured import boundaries, clean
from pellucid.studies.jakubovitz2018_networks import networks
from pellucid.studies.jakubovitz2018_report import Jakubovitz2018Report
from pellucid.studies.jakubovitz2018_scales import SCALES
from pellucid.studies.jakubovitz2018_tables import Jakubovitz2018Tables

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
        tables=tables, choices=tuple(part for pair in (*CHOICES[scale.name], *COMMON_CHOICES) for part in pair)
    )
