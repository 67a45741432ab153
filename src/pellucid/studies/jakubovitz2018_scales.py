"""The three sizes of the Jakubovitz & Giryes study: data, networks, schedules and how much is measured at each."""

from dataclasses import dataclass, replace

from pellucid.data import CIFAR10, MNIST, Digits, Glyphs
from pellucid.models import JakubovitzCNN, TutorialCNN
from pellucid.optimisers import Adam, Optimiser, RMSProp
from pellucid.protocols import Data, ModelSpec
from pellucid.train import Precision


@dataclass(frozen=True)
class Half:
    """One of the paper's two data sets with its network: how it is trained, and what is measured of it."""

    data: Data
    model: ModelSpec
    optimiser: Optimiser
    images: int | None  # of the training part
    steps: int  # of the undefended network
    more: int  # of post-processing
    batch_size: int
    examples: float  # share of the batch whose Jacobian is taken
    eps: float  # of the FGSM images in the mini-batch
    weights: tuple[float, float, float]  # of the penalties, in the order of their names
    measured: int  # images with rho_adv and Jacobian norms
    fgsm: tuple[float, ...]  # the grid of Figure 1
    fgsm_images: int
    jsma: tuple[float, ...]  # the grid of Figure 2
    jsma_steps: int
    jsma_images: int
    autoattack: tuple[int, int, int, int]  # images, steps, targets, queries
    log_every: int = 100
    precision: Precision = "float32"


@dataclass(frozen=True)
class Scale:
    """What differs between half a minute on embedded data and the paper's own run."""

    name: str
    mnist: Half
    cifar: Half
    fractions: tuple[float, ...]  # of perturbed inputs in the mini-batch
    lambdas: tuple[float, ...]
    swept: int  # images with rho_adv, of the networks of the sweeps and of further seeds
    swept_clean: int  # images with accuracy, of the same
    seeds: tuple[int, ...]  # further ones
    bounds: tuple[int, int]  # images, points of a segment
    sparse: int  # images whose l0 distance is measured
    timed: int  # images whose gradients are timed
    mnist_instead: str  # what stands in for the paper's own, on MNIST and on CIFAR-10
    cifar_instead: str


MNIST_EPS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
CIFAR_EPS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)
MNIST_JSMA = (0.1, 0.25, 0.5, 1.0)
CIFAR_JSMA = (0.01, 0.03, 0.1, 0.3)
FULL = (100, 9, 5000)  # AutoAttack's standard version

_MNIST = Half(
    data=MNIST(),
    model=TutorialCNN(),
    optimiser=Adam(lr=1e-4, eps_hat=True),
    images=None,
    steps=20001,
    more=4500,
    batch_size=500,
    examples=1.0,
    eps=0.1,
    weights=(1.0, 1e-4, 0.1),
    measured=10000,
    fgsm=MNIST_EPS,
    fgsm_images=10000,
    jsma=MNIST_JSMA,
    jsma_steps=80,
    jsma_images=1000,
    autoattack=(1000, *FULL),
    log_every=500,
)
_CIFAR = Half(
    data=CIFAR10(),
    model=JakubovitzCNN(),
    optimiser=RMSProp(lr=1e-4, eps=1e-10, eps_inside=True),
    images=None,
    steps=70200,
    more=15795,
    batch_size=128,
    examples=1.0,
    eps=0.01,
    weights=(5.0, 5e-4, 0.5),
    measured=10000,
    fgsm=CIFAR_EPS,
    fgsm_images=10000,
    jsma=CIFAR_JSMA,
    jsma_steps=200,
    jsma_images=1000,
    autoattack=(1000, *FULL),
    log_every=500,
)

SCALES = {
    "smoke": Scale(
        name="smoke",
        mnist=replace(
            _MNIST,
            data=Digits(),
            model=TutorialCNN(filters=(8, 16), hidden=64),
            optimiser=Adam(lr=2e-3, eps_hat=True),
            steps=80,
            more=20,
            batch_size=50,
            examples=0.2,
            measured=60,
            fgsm=(0.0, 0.1, 0.2, 0.3),
            fgsm_images=100,
            jsma=(0.25, 1.0),
            jsma_steps=20,
            jsma_images=8,
            autoattack=(8, 5, 1, 10),
            log_every=20,
        ),
        cifar=replace(
            _CIFAR,
            data=Glyphs(side=32, colour=True, train=400, validation=100, test=200),
            model=JakubovitzCNN(width=4, hidden=16),
            optimiser=RMSProp(lr=1e-3, eps=1e-10, eps_inside=True),
            steps=30,
            more=10,
            batch_size=32,
            examples=0.2,
            measured=20,
            fgsm=(0.0, 0.01, 0.03),
            fgsm_images=60,
            jsma=(0.03, 0.3),
            jsma_steps=10,
            jsma_images=6,
            autoattack=(6, 3, 1, 5),
            log_every=10,
        ),
        fractions=(1.0,),
        lambdas=(1.0,),
        swept=20,
        swept_clean=200,
        seeds=(1,),
        bounds=(20, 3),
        sparse=6,
        timed=16,
        mnist_instead="8x8 digits for MNIST, a narrow network, 80 batches for 20,001",
        cifar_instead="drawn letters for CIFAR-10, a narrow network, 30 batches",
    ),
    "small": Scale(
        name="small",
        mnist=replace(
            _MNIST,
            optimiser=Adam(lr=1e-3, eps_hat=True),
            images=20000,
            steps=140,
            more=60,
            examples=1 / 8,
            measured=1000,
            fgsm_images=1000,
            jsma_images=60,
            autoattack=(50, 30, 3, 500),
            log_every=100,
        ),
        cifar=replace(
            _CIFAR,
            model=JakubovitzCNN(width=16, hidden=128),
            optimiser=RMSProp(lr=1e-3, eps=1e-10, eps_inside=True),
            images=20000,
            steps=1200,
            more=200,
            examples=1 / 8,
            measured=300,
            fgsm_images=1000,
            jsma_images=30,
            autoattack=(50, 30, 3, 500),
            log_every=100,
            precision="bfloat16",
        ),
        fractions=(1.0,),
        lambdas=(0.03, 0.3),
        swept=200,
        swept_clean=2000,
        seeds=(1, 2),
        bounds=(1000, 8),
        sparse=100,
        timed=100,
        mnist_instead="20,000 of MNIST's 55,000 training images, 140 + 60 batches for 20,001 + 4,500",
        cifar_instead="20,000 of CIFAR-10's 45,000 training images, a quarter of the usual width, 1,200 + 200 batches",
    ),
    "paper": Scale(
        name="paper",
        mnist=_MNIST,
        cifar=_CIFAR,
        fractions=(0.25, 0.75, 1.0),
        lambdas=(0.01, 0.03, 0.3, 1.0),
        swept=10000,
        swept_clean=10000,
        seeds=(1, 2, 3, 4),
        bounds=(10000, 20),
        sparse=1000,
        timed=100,
        mnist_instead="",
        cifar_instead="",
    ),
}
