"""Ross & Doshi-Velez 2018, "Improving the adversarial robustness and interpretability of deep neural networks by
regularizing their input gradients": the experiments on FGSM transfer, gradient norms and input gradients.

What the paper trains: the network of `RossCNN` without a defence ("normal"), with FGSM adversarial training at
eps 0.3 against the network's own predictions ("adv. trained"), and with double backpropagation ("grad. reg.").
What it measures: the accuracy of each network on FGSM examples made for each, eps from 0 to 0.7 (Figure 1); the
norms of the loss gradient at the true and at the next label (Figure 4); input gradients as explanations (Figure 6).
"""

from typing import Any

from pellucid.attacks import FGSM, PGD, TGSM
from pellucid.defences import DoubleBackprop, Standard
from pellucid.interpreters import CAM, Gradient
from pellucid.models import SmallCNN
from pellucid.protocols import Defence, ModelSpec
from pellucid.studies.ross2018_networks import CHUNK, EPSILONS, Domain, adversarial, networks, trained, transfer
from pellucid.studies.ross2018_report import Ross2018Report
from pellucid.studies.ross2018_scales import COMMON_CHOICES, SCALES, Scale
from pellucid.studies.ross2018_tables import Ross2018Tables
from pellucid.studies.ross2018_transfers import Ross2018Transfers
from pellucid.tasks import Evaluate, Explain, InputGradients, Train

__all__ = ["COMMON_CHOICES", "EPSILONS", "SCALES", "Scale", "study"]


def study(scale_name: str) -> Ross2018Report:
    """Return the whole study as one task."""
    scale = SCALES[scale_name]
    defences: dict[str, Defence] = {
        "normal": Standard(),
        "adv. trained": adversarial(scale.mnist, scale.schedule()),
        **{_grad_reg(weight): DoubleBackprop(weight=weight) for weight in scale.lambdas},
    }
    found = {label: _train(scale, scale.model, defence, scale.steps) for label, defence in defences.items()}
    pooled = {
        f"{label}, Small": _train(scale, SmallCNN(), defence, scale.small_steps)
        for label, defence in list(defences.items())[:3]
    }
    tables = Ross2018Tables(
        scale=scale.name,
        labels=tuple(found),
        lambdas=scale.lambdas,
        networks=tuple(found.values()),
        transfers=tuple(_transfer(scale, found, label) for label in found),
        selection=Evaluate(
            network=found["normal"],
            judges=tuple(task for label, task in found.items() if label.startswith("grad")),
            data=scale.data,
            part="validation",
            attack=FGSM(eps=0.3),
            epsilons=(0.0, 0.1, 0.2, 0.3),
            images=scale.validated,
            chunk=CHUNK,
        ),
        norms=tuple(InputGradients(network=task, data=scale.data, images=scale.measured) for task in found.values()),
        explained_labels=(*found, *pooled),
        explained=tuple(_explain(scale, task) for task in (*found.values(), *pooled.values())),
    )
    return Ross2018Report(
        tables=tables,
        chapters=() if scale.name == "smoke" else tuple(_transfers(scale, domain) for domain in scale.domains),
        choices=tuple(part for pair in (*scale.choices, *COMMON_CHOICES) for part in pair),
    )


def _transfers(scale: Scale, domain: Domain) -> Ross2018Transfers:
    """Return Figures 1 to 3 of one data set."""
    named = networks(domain, scale.schedule(domain.name), scale.validated)
    largest = max(domain.grid())
    return Ross2018Transfers(
        name=domain.name,
        instead=domain.stands_in,
        labels=tuple(named),
        fgsm=tuple(transfer(domain, named, maker, FGSM(eps=largest)) for maker in named),
        tgsm=tuple(transfer(domain, named, maker, TGSM(eps=largest)) for maker in named),
        norms=tuple(InputGradients(network=task, data=domain.data, images=domain.images) for task in named.values()),
    )


def _grad_reg(weight: float) -> str:
    return f"grad. reg. λ={weight:.3g}"


def _train(scale: Scale, model: ModelSpec, defence: Defence, steps: int) -> Train:
    return trained(scale.mnist, scale.schedule(), defence, model, steps=steps)


def _transfer(scale: Scale, networks: dict[str, Train], maker: str) -> Evaluate:
    judges = tuple(task for label, task in networks.items() if label != maker)
    return Evaluate(
        network=networks[maker],
        judges=judges,
        data=scale.data,
        attack=FGSM(eps=max(EPSILONS)),
        epsilons=EPSILONS,
        images=scale.attacked,
        chunk=CHUNK,
    )


def _explain(scale: Scale, network: Any) -> Explain:
    has_head = isinstance(network.model, SmallCNN)
    return Explain(
        network=network,
        data=scale.data,
        attack=PGD(eps=0.1, steps=20),
        interpreters=(Gradient(score="cross_entropy"), *((CAM(),) if has_head else (Gradient(score="certainty"),))),
        images=scale.explained,
    )
