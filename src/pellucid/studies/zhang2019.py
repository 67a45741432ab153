"""Zhang & Zhu 2019, "Interpreting adversarially trained convolutional neural networks": CIFAR-10.

What the paper trains: ResNet-18 without a defence ("Normal"), the same stopped early ("Underfit"), and with PGD and
FGSM adversarial training of several strengths. What it measures: accuracy on images whose texture or shape was taken
away, among those that a network gets right when they are untouched. What it does not have: interpretability-aware
training and double backpropagation beside them, and how sparse maps are and how much on contours, in numbers.
"""

from dataclasses import dataclass, replace
from typing import Any

from pellucid.attacks import FGSM, PGD
from pellucid.data import CIFAR10, CropAndFlip, Digits
from pellucid.defences import AdversarialTraining, DoubleBackprop, InterpretabilityAware, Standard
from pellucid.models import ResNet18, SmallCNN
from pellucid.optimisers import SGD, Adam, Optimiser
from pellucid.protocols import Data, Defence, ModelSpec, Transform
from pellucid.schedule import OneCycle, Ramp, StepDecay
from pellucid.stopping import TargetAccuracy
from pellucid.studies.zhang2019_claims import ADVERSARIAL, NORMAL, UNDERFIT
from pellucid.studies.zhang2019_report import Zhang2019Report
from pellucid.studies.zhang2019_tables import Zhang2019Tables
from pellucid.tasks import Evaluate, Train
from pellucid.tasks.transforming import Sensitivity, Transformed
from pellucid.train import Precision
from pellucid.transforms import (
    Blur,
    Edges,
    GaussianNoise,
    Grayscale,
    HighPass,
    LowPass,
    PatchShuffle,
    RandomFourier,
    Saturation,
    Silhouette,
)

INT, DOUBLE = "Int", "DoubleBackprop"
EPS = 8 / 255
SATURATIONS = (0.25, 0.5, 1, 4, 8, 16, 64, 1024)


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
    shuffled: tuple[int, ...]  # k of k x k patches
    radii: tuple[int, ...]  # of the Fourier filters, cycles per image
    measured: int | None  # test images, None for all
    attacked: int
    mapped: int
    choices: tuple[tuple[str, str], ...]


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
        shuffled=(2, 4, 7),
        radii=(4, 8),
        measured=None,
        attacked=60,
        mapped=8,
        choices=(
            ("Data", "scikit-learn's 1,797 handwritten digits scaled to 28x28 stand in for CIFAR-10, eps .1 for 8/255"),
            ("Schedule", "2 epochs, 2 inner steps, a ResNet-8 of width 4: it shows that everything runs, no more"),
            ("Patches", "7 x 7 for 8 x 8, which does not divide 28 pixels"),
        ),
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
        shuffled=(2, 4, 8),
        radii=(4, 8),
        measured=None,
        attacked=1000,
        mapped=100,
        choices=(
            ("Networks", "Small, and a ResNet-8 of width 16 with global average pooling, for the paper's ResNet-18"),
            (
                "Schedule",
                "10 epochs of batches of 128 (3,510), Adam, one cycle up to 2e-3; the paper does not print its own for "
                "CIFAR-10",
            ),
            ("Precision", "training under bfloat16 autocast; everything is measured in float32"),
            ("Inner attack", "5 steps, of eps / 2 in adversarial training (the paper has 20), of eps / 4 in Int"),
            ("Strengths", "of the paper's nine adversarially trained networks the one with PGD in linf, eps 8/255"),
            ("PGD", "robustness on the first 1,000 test images"),
            ("Maps", "of the first 100 test images"),
        ),
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
        shuffled=(2, 4, 8),
        radii=(4, 8),
        measured=None,
        attacked=10000,
        mapped=1000,
        choices=(
            (
                "Schedule",
                "60 epochs of batches of 128, SGD at .1, a tenth and a hundredth of it after half and three quarters; "
                "the paper does not print its own for CIFAR-10",
            ),
        ),
    ),
}


COMMON_CHOICES = (
    ("Adversarial training", "every second batch is clean and no random start, as in the authors' code"),
    (
        "Underfit",
        "the undefended training, stopped at the first log at which it is as accurate on 512 validation images as the "
        "network trained with PGD at eps 8/255; the paper does not say how it was made",
    ),
    (
        "Int",
        "Boopathy et al. 2020, in the authors' form, weight .01, inner attack of eps 8/255 with random start; its eps "
        "is 0 for 7 % of the run, full at half",
    ),
    ("DoubleBackprop", "Ross & Doshi-Velez 2018, weight 1 on the mean squared input gradient, not tuned"),
    ("Augmentation", "zero-padding by 4, random crop, random flip, as in the paper, for every method"),
    (
        "PGD",
        "eps 8/255, 40 steps of 2/255 from the clean image; misclassified images count. Any iterate may fool",
    ),
    (
        "Fourier filters",
        "the paper prints neither radius nor probability, and filters Caltech-256 only. Here: discs around frequency "
        "0, radius in cycles per image, not clipped; modes dropped with their conjugates, in all channels alike",
    ),
    (
        "Stylized images",
        "not here: the paper has none of CIFAR-10. docs/results/stylize shows the transformation itself",
    ),
    (
        "Maps",
        "SmoothGrad of log p of the true class, 100 samples, sigma a tenth of the image's range (equations 2 and 3)",
    ),
    ("One seed", "every network is trained once: intervals are over test images, not over trainings"),
)


def transforms(scale: Scale) -> dict[str, Transform]:
    """Return the transformations by the names of their levels, and some of our own between shape and texture."""
    return {
        **{f"saturation {p:g}": Saturation(p=p) for p in SATURATIONS},
        **{f"shuffle {k}": PatchShuffle(k=k) for k in scale.shuffled},
        **{f"low-pass {radius}": LowPass(radius=radius) for radius in scale.radii},
        **{f"high-pass {radius}": HighPass(radius=radius) for radius in scale.radii},
        **{f"random {drop:g}": RandomFourier(drop=drop) for drop in (0.1, 0.5)},
        "grayscale": Grayscale(),
        "blur 1": Blur(sigma=1),
        "noise 0.1": GaussianNoise(sigma=0.1),
        "edges": Edges(),
        "silhouette": Silhouette(),
    }


def networks(scale_name: str) -> dict[tuple[str, str], Train]:
    """Return the training of every network, by architecture and method."""
    scale, found = SCALES[scale_name], dict[tuple[str, str], Train]()
    for architecture, model in scale.models.items():
        trained = {method: _train(scale, model, defence) for method, defence in defences(scale).items()}
        early = TargetAccuracy(like=trained[ADVERSARIAL])
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


def study(scale_name: str) -> Zhang2019Report:
    """Return the whole study as one task."""
    scale, trained, levels = SCALES[scale_name], networks(scale_name), transforms(SCALES[scale_name])
    mapped = {level: levels[level] for level in ("saturation 8", "saturation 1024", f"shuffle {scale.shuffled[1]}")}

    def measured(task: Any, **settings: Any) -> Any:
        return tuple(task(network=network, data=scale.data, **settings) for network in trained.values())

    attack = PGD(eps=scale.eps, steps=40, step_size=scale.eps / 4, random_start=False)
    tables = Zhang2019Tables(
        scale=scale.name,
        levels=tuple(levels),
        map_levels=tuple(mapped),
        architectures=tuple(architecture for architecture, _ in trained),
        methods=tuple(method for _, method in trained),
        networks=tuple(trained.values()),
        transformed=measured(Transformed, transforms=tuple(levels.values()), images=scale.measured),
        attacked=measured(Evaluate, attack=attack, epsilons=(scale.eps,), images=scale.attacked, chunk=250),
        mapped=measured(Sensitivity, transforms=tuple(mapped.values()), images=scale.mapped),
    )
    return Zhang2019Report(
        tables=tables, choices=tuple(part for pair in (*scale.choices, *COMMON_CHOICES) for part in pair)
    )


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
