"""How the input gradients of defended networks look, and how stable their maps are when somebody attacks the maps.

The networks of the Ross & Doshi-Velez study, as its Figure 6 shows them (gradients of the certainty term), and under
the attack of Boopathy et al. 2020, Table 3 (AAI, 200 steps of 0.01 on the 8 largest positions of the true class's
map): Kendall's tau between the maps before and after, over images whose prediction stayed, with their number.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pellucid.attacks import AAI
from pellucid.interpreters import CAM, GradCAM, Gradient
from pellucid.protocols import Interpreter
from pellucid.studies import ross2018
from pellucid.studies.stability_report import StabilityReport
from pellucid.studies.stability_tables import StabilityTables
from pellucid.tasks import Explain

EPSILONS = (0.05, 0.1, 0.2, 0.3, 0.4)


@dataclass(frozen=True)
class Scale:
    """How many images, and how long they are attacked; networks and data are those of the study ross2018."""

    images: int
    steps: int
    epsilons: tuple[float, ...]
    shown: int


SCALES = {
    "smoke": Scale(40, 20, (0.05, 0.2, 0.4), 6),
    "small": Scale(200, 200, EPSILONS, 10),
    "paper": Scale(200, 200, EPSILONS, 10),
}

CHOICES = (
    (
        "Networks",
        "those of the study ross2018 at this scale, trained by the same tasks; of the paper's network with several "
        "lambdas the largest is attacked",
    ),
    ("Input gradients", "of sum_k log p_k = -K H(1/K, yhat), as in Figure 6 of Ross & Doshi-Velez 2018"),
    (
        "Maps under attack",
        "CAM for the Small networks, as Boopathy et al. have it; GradCAM without its ReLU for the network of Ross & "
        "Doshi-Velez, which has no pooled head (with the ReLU, a map can be zero everywhere and has no rank order)",
    ),
    (
        "Attack",
        "AAI: uniform random start, steps of 0.01 down the sum of the 8 positions where the clean map is largest, last "
        "iterate; the paper's eps of .35 is left out",
    ),
    (
        "Images",
        "the first of the test set; the paper's 200 are a permutation of its own. An image is kept where the predicted "
        "class is the same before and after, right or not",
    ),
    ("Printed values", "of the row Normal in Table 3; its other rows are trained by defences that are not here"),
)


def study(scale_name: str) -> StabilityReport:
    """Return the whole study as one task."""
    scale, tables, data = SCALES[scale_name], ross2018.study(scale_name).tables, ross2018.SCALES[scale_name].data
    networks = {
        label: explained.network for label, explained in zip(tables.explained_labels, tables.explained, strict=True)
    }
    weaker = [label for label in tables.labels if label.startswith("grad")][:-1]  # smaller lambdas: gradients only
    attacked = {label: network for label, network in networks.items() if label not in weaker}
    measured = [(label, network, eps) for label, network in attacked.items() for eps in scale.epsilons]
    return StabilityReport(
        tables=StabilityTables(
            scale=scale_name,
            networks=tuple(label for label, _, _ in measured),
            epsilons=tuple(eps for _, _, eps in measured),
            explained=tuple(
                Explain(
                    network=network,
                    data=data,
                    attack=AAI(interpreter=_map_of(label), eps=eps, steps=scale.steps),
                    interpreters=(_map_of(label),),
                    images=scale.images,
                    chunk=40,
                )
                for label, network, eps in measured
            ),
            printed=tuple(printed().get((label, eps), UNPRINTED) for label, _, eps in measured),
        ),
        labels=tuple(networks),
        gradients=tuple(
            Explain(network=network, data=data, interpreters=(Gradient(score="certainty"),), images=scale.shown)
            for network in networks.values()
        ),
        choices=tuple(part for pair in CHOICES for part in pair),
    )


UNPRINTED = -2.0  # no tau


def printed() -> dict[tuple[str, float], float]:
    """Return the printed taus by (network, eps)."""
    rows: list[dict[str, Any]] = json.loads(files("pellucid.studies").joinpath("boopathy2020_table3.json").read_text())
    return {(row["network"], row["epsilon"]): row["tau"] for row in rows}


def _map_of(label: str) -> Interpreter:
    return CAM() if label.endswith("Small") else GradCAM(relu=False)
