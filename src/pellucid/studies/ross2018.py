"""Ross & Doshi-Velez 2018, "Improving the adversarial robustness and interpretability of deep neural networks by
regularizing their input gradients": the experiments on FGSM transfer, gradient norms and input gradients.

What the paper trains: the network of `RossCNN` without a defence ("normal"), with FGSM adversarial training at
eps 0.3 against the network's own predictions ("adv. trained"), and with double backpropagation ("grad. reg.").
What it measures: the accuracy of each network on FGSM examples made for each, eps from 0 to 0.7 (Figure 1); the
norms of the loss gradient at the true and at the next label (Figure 4); input gradients as explanations (Figure 6).
"""

from dataclasses import dataclass
from typing import Any

from pellucid.attacks import FGSM, PGD
from pellucid.data import MNIST, Digits
from pellucid.defences import AdversarialTraining, DoubleBackprop, Standard
from pellucid.interpreters import CAM, Gradient
from pellucid.models import RossCNN, SmallCNN
from pellucid.optimisers import Adam
from pellucid.protocols import Data, Defence, ModelSpec
from pellucid.studies.ross2018_report import Ross2018Report
from pellucid.studies.ross2018_tables import Ross2018Tables
from pellucid.tasks import Evaluate, Explain, InputGradients, Train

EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
CODE_UNITS = 512  # lambda of the authors' code = 2 B lambda of equation 6, B = 256
PAPER_LAMBDA = 56234.13 / CODE_UNITS


@dataclass(frozen=True)
class Scale:
    """What differs between a minute on embedded digits and the paper's own run."""

    name: str
    data: Data
    adversarial: AdversarialTraining
    steps: int
    small_steps: int  # for the networks with class activation maps, which the paper does not have
    batch_size: int
    lr: float
    lambdas: tuple[float, ...]
    log_every: int
    explained: int
    measured: int
    choices: tuple[tuple[str, str], ...]


SCALES = {
    "smoke": Scale(
        name="smoke",
        data=Digits(),
        adversarial=AdversarialTraining(batches="together"),
        steps=120,
        small_steps=300,
        batch_size=64,
        lr=1e-3,
        lambdas=(PAPER_LAMBDA / 100,),
        log_every=20,
        explained=60,
        measured=200,
        choices=(
            ("Data", "scikit-learn's 1,797 handwritten digits scaled to 28x28 stand in for MNIST"),
            (
                "Schedule",
                "120 batches of 64 at learning rate 1e-3, for the paper's 15,000 of 256 at 2e-4: a minute, not hours",
            ),
            (
                "Adversarial training",
                "clean and adversarial images share one batch: with the authors' separate batches the running "
                "statistics of batch normalisation fit neither kind on 1,197 images, and clean accuracy in eval mode "
                "falls to chance",
            ),
            ("Lambda", "1.1, a hundredth of the paper's 109.8: the largest that so short a schedule learns under"),
        ),
    ),
    "small": Scale(
        name="small",
        data=MNIST(),
        adversarial=AdversarialTraining(),
        steps=500,
        small_steps=500,
        batch_size=256,
        lr=1e-3,
        lambdas=(PAPER_LAMBDA / 100, PAPER_LAMBDA / 10, PAPER_LAMBDA),
        log_every=25,
        explained=100,
        measured=1000,
        choices=(
            ("Data", "MNIST, 55,000 training images, the first 5,000 for validation, all 10,000 test images"),
            (
                "Schedule",
                "500 batches of 256 (2.3 epochs) at learning rate 1e-3, for the paper's 15,000 at 2e-4: what two cores "
                "do in an hour. Networks are far from converged, the strongly regularised ones most",
            ),
            ("Lambda", "1.1, 11 and 109.8; the last is the paper's choice for MNIST (56234.13 in its code's units)"),
        ),
    ),
    "paper": Scale(
        name="paper",
        data=MNIST(),
        adversarial=AdversarialTraining(),
        steps=15000,
        small_steps=15000,
        batch_size=256,
        lr=2e-4,
        lambdas=tuple(10 ** (2 + k / 4) / CODE_UNITS for k in range(13)),
        log_every=100,
        explained=200,
        measured=10000,
        choices=(
            ("Data", "MNIST, 55,000 training images, the first 5,000 for validation, all 10,000 test images"),
            ("Schedule", "the paper's: 15,000 batches of 256, Adam at 2e-4 with epsilon 1e-4"),
            ("Lambda", "the 13 values of the authors' sweep, 10^2 to 10^5 in their code's units, /512 here"),
        ),
    ),
}

COMMON_CHOICES = (
    ("Optimiser", "Adam with epsilon 1e-4 added as TensorFlow does (epsilon hat), since the authors used it"),
    ("Order", "batches are shuffled every epoch; the authors' code goes through the data in order"),
    (
        "Selection of lambda",
        "highest validation accuracy on FGSM examples made for the normal network (mean over eps .1, .2, .3) among "
        "networks that keep 97 % of its clean validation accuracy, the most accurate one if none does; the authors' "
        "code selects on test images",
    ),
    ("Stability", "maps of the true class before and after PGD (eps 0.1, 20 steps), which the paper does not have"),
    ("CAM", "the paper's network has no linear head on pooled features; the Small network of Boopathy et al. has"),
)


def study(scale_name: str) -> Ross2018Report:
    """Return the whole study as one task."""
    scale = SCALES[scale_name]
    defences: dict[str, Defence] = {
        "normal": Standard(),
        "adv. trained": scale.adversarial,
        **{_grad_reg(weight): DoubleBackprop(weight=weight) for weight in scale.lambdas},
    }
    networks = {label: _train(scale, RossCNN(), defence, scale.steps) for label, defence in defences.items()}
    pooled = {
        f"{label}, Small": _train(scale, SmallCNN(), defence, scale.small_steps)
        for label, defence in list(defences.items())[:3]
    }
    tables = Ross2018Tables(
        scale=scale.name,
        labels=tuple(networks),
        lambdas=scale.lambdas,
        networks=tuple(networks.values()),
        transfers=tuple(_transfer(scale, networks, label) for label in networks),
        selection=Evaluate(
            network=networks["normal"],
            judges=tuple(task for label, task in networks.items() if label.startswith("grad")),
            data=scale.data,
            part="validation",
            attack=FGSM(eps=0.3),
            epsilons=(0.0, 0.1, 0.2, 0.3),
        ),
        norms=tuple(InputGradients(network=task, data=scale.data, images=scale.measured) for task in networks.values()),
        explained_labels=(*networks, *pooled),
        explained=tuple(_explain(scale, task) for task in (*networks.values(), *pooled.values())),
    )
    return Ross2018Report(
        tables=tables, choices=tuple(part for pair in (*scale.choices, *COMMON_CHOICES) for part in pair)
    )


def _grad_reg(weight: float) -> str:
    return f"grad. reg. λ={weight:.3g}"


def _train(scale: Scale, model: ModelSpec, defence: Defence, steps: int) -> Train:
    return Train(
        data=scale.data,
        model=model,
        defence=defence,
        optimiser=Adam(lr=scale.lr, eps=1e-4, eps_hat=True),
        steps=steps,
        batch_size=scale.batch_size,
        log_every=scale.log_every,
    )


def _transfer(scale: Scale, networks: dict[str, Train], maker: str) -> Evaluate:
    judges = tuple(task for label, task in networks.items() if label != maker)
    return Evaluate(
        network=networks[maker], judges=judges, data=scale.data, attack=FGSM(eps=max(EPSILONS)), epsilons=EPSILONS
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
