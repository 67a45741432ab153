"""Zhang & Zhu 2019, "Interpreting adversarially trained convolutional neural networks": CIFAR-10.

What the paper trains: ResNet-18 without a defence ("Normal"), the same stopped early ("Underfit"), and with PGD and FGSM
adversarial training of several strengths. What it measures: accuracy on images whose texture or shape was taken away,
among those that a network gets right when they are untouched. What it does not have: interpretability-aware training
and double backpropagation beside them, and how maps, not only accuracies, follow the shape.
"""

from dataclasses import dataclass, field, replace

from pellucid.attacks import FGSM, PGD
from pellucid.data import CIFAR10, CropAndFlip, Digits
from pellucid.defences import AdversarialTraining, DoubleBackprop, InterpretabilityAware, Standard
from pellucid.models import ResNet18, SmallCNN
from pellucid.optimisers import SGD, Adam, Optimiser
from pellucid.protocols import Data, Defence, ModelSpec
from pellucid.schedule import OneCycle, Ramp, StepDecay
from pellucid.stopping import TargetAccuracy
from pellucid.tasks import Train
from pellucid.train import Precision

NORMAL, UNDERFIT, PGD_LINF_8, INT, DOUBLE = "Normal", "Underfit", "PGD-linf: 8", "Int", "DoubleBackprop"
EPS = 8 / 255


@dataclass(frozen=True)
class Scale:
    """What differs between a minute on embedded digits and the paper's own run."""

    name: str
    data: Data
    models: dict[str, ModelSpec]
    all_eleven: bool
    eps: float
    inner_steps: int
    epochs: int
    batch_size: int
    optimiser: Optimiser
    precision: Precision
    augmented: bool
    log_every: int
    choices: tuple[tuple[str, str], ...] = field(default=())


SCALES = {
    "smoke": Scale(
        name="smoke",
        data=Digits(),
        models={"Small": SmallCNN(), "ResNet-8": ResNet18(blocks=(1, 1, 1), width=4)},
        all_eleven=False,
        eps=0.1,
        inner_steps=2,
        epochs=2,
        batch_size=50,
        optimiser=Adam(lr=2e-3),
        precision="float32",
        augmented=False,
        log_every=5,
    ),
    "small": Scale(
        name="small",
        data=CIFAR10(),
        models={"Small": SmallCNN(), "ResNet-8": ResNet18(blocks=(1, 1, 1), width=16)},
        all_eleven=False,
        eps=EPS,
        inner_steps=5,
        epochs=10,
        batch_size=128,
        optimiser=Adam(lr=2e-3, schedule=OneCycle()),
        precision="bfloat16",
        augmented=True,
        log_every=50,
    ),
    "paper": Scale(
        name="paper",
        data=CIFAR10(),
        models={"ResNet-18": ResNet18()},
        all_eleven=True,
        eps=EPS,
        inner_steps=20,
        epochs=60,
        batch_size=128,
        optimiser=SGD(lr=0.1, schedule=StepDecay(at=(0.5, 0.75), factors=(0.1, 0.01))),
        precision="float32",
        augmented=True,
        log_every=100,
    ),
}


def networks(scale_name: str) -> dict[tuple[str, str], Train]:
    """Return the training of every network, by architecture and method."""
    scale = SCALES[scale_name]
    found = {}
    for architecture, model in scale.models.items():
        trained = {method: _train(scale, model, defence) for method, defence in defences(scale).items()}
        early = TargetAccuracy(like=trained[PGD_LINF_8])
        underfit = replace(trained[NORMAL], stop=early, log_every=max(1, scale.log_every // 5))
        order = (NORMAL, UNDERFIT, *(method for method in trained if method != NORMAL))
        found |= {(architecture, method): (trained | {UNDERFIT: underfit})[method] for method in order}
    return found


def defences(scale: Scale) -> dict[str, Defence]:
    """Return the paper's training methods that are there at this scale, and ours."""
    found: dict[str, Defence] = {NORMAL: Standard()}
    for strength in (8, 4, 2, 1) if scale.all_eleven else (8,):
        eps = scale.eps * strength / 8
        step = max(eps / 2, 1 / 255) if scale.all_eleven else eps / 2
        found[f"PGD-linf: {strength}"] = _alternate(
            PGD(eps=eps, step_size=step, steps=scale.inner_steps, random_start=False)
        )
    if scale.all_eleven:
        for radius, strength in ((1.2, 12), (0.8, 8), (0.4, 4)):
            found[f"PGD-l2: {strength}"] = _alternate(
                PGD(
                    norm="l2",
                    eps=radius,
                    step_size=strength / 2 / 255,
                    steps=scale.inner_steps,
                    random_start=False,
                    direction="sign",
                    order="box_ball",
                )
            )
        found |= {f"FGSM: {strength}": _alternate(FGSM(eps=strength / 255)) for strength in (8, 4)}
    inner = PGD(eps=scale.eps, step_size=scale.eps / 4, steps=scale.inner_steps)
    ramp = Ramp(start=0.0, stop=scale.eps, begin=0.07, until=0.5)
    return found | {INT: InterpretabilityAware(attack=inner, eps=ramp, form="code"), DOUBLE: DoubleBackprop(weight=1.0)}


def _alternate(attack: FGSM | PGD) -> AdversarialTraining:
    """Return adversarial training as the authors' code has it: every second batch is clean."""
    return AdversarialTraining(attack=attack, share=1.0, batches="alternate")


def _train(scale: Scale, model: ModelSpec, defence: Defence) -> Train:
    return Train(
        data=scale.data,
        model=model,
        defence=defence,
        optimiser=scale.optimiser,
        epochs=scale.epochs,
        batch_size=scale.batch_size,
        augmentation=CropAndFlip() if scale.augmented else None,
        precision=scale.precision,
        log_every=scale.log_every,
        channels_last=scale.name == "small" and not isinstance(defence, DoubleBackprop),
    )
