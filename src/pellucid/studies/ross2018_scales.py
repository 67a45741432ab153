"""The three scales of the Ross & Doshi-Velez study, and every choice that the paper does not print, with its reason."""

from dataclasses import dataclass

from pellucid.data import MNIST, Digits, Glyphs, NotMNIST, SVHNRoss
from pellucid.models import RossCNN
from pellucid.protocols import Data
from pellucid.studies.ross2018_networks import CODE_UNITS, Domain, Schedule
from pellucid.train import Precision

PAPER_LAMBDA = 56234.13 / CODE_UNITS  # MNIST; the values for the other data sets are those the authors selected
SVHN_LAMBDA, NOTMNIST_LAMBDA = 10_000 / CODE_UNITS, 562.34 / CODE_UNITS
CERTAINTY_LAMBDA, NOTMNIST_CERTAINTY = 1000 / CODE_UNITS, 177.83 / CODE_UNITS
SWEEP = tuple(10 ** (2 + k / 4) / CODE_UNITS for k in range(13))
CERTAINTY_SWEEP = tuple(10 ** (k / 4) / CODE_UNITS for k in range(13))
SVHN_RANGE = (-6.326655864715576, 7.13497257232666)  # of the normalised grey images of the test part, as it is here


@dataclass(frozen=True)
class Scale:
    """What differs between a minute on embedded images and the paper's own run."""

    name: str
    data: Data  # MNIST, or what stands in for it
    steps: int
    small_steps: int  # for the networks with class activation maps, which the paper does not have
    batch_size: int
    lr: float
    lambdas: tuple[float, ...]
    certainty: tuple[float, ...]
    log_every: int
    explained: int
    measured: int
    attacked: int | None  # test images of the study of lambda on MNIST; None: all
    validated: int | None  # validation images that choose lambda
    transferred: int  # test images of Figures 1 and 3 on MNIST
    svhn: Domain
    svhn_steps: int
    notmnist: Domain
    notmnist_steps: int
    penalised: tuple[float, ...]  # lambdas of Figure 9
    penalised_schedule: Schedule
    seeds: tuple[int, ...]  # further ones, of two networks on the notMNIST stand-in
    strong_images: int  # under AutoAttack
    choices: tuple[tuple[str, str], ...]
    precision: Precision = "float32"
    batches: str = "separate"
    model: RossCNN = RossCNN()  # noqa: RUF009 - a frozen description
    stands_in: str = ""

    @property
    def mnist(self) -> Domain:
        """The first of the three data sets."""
        return Domain(
            name="MNIST",
            data=self.data,
            images=self.transferred,
            lambdas=self.lambdas,
            certainty=self.certainty,
            model=self.model,
            stands_in=self.stands_in,
        )

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The three data sets in the order of the paper's figures."""
        return (self.mnist, self.svhn, self.notmnist)

    def schedule(self, domain: str = "MNIST") -> Schedule:
        """Return the schedule of a data set's networks."""
        steps = {"MNIST": self.steps, "SVHN": self.svhn_steps, "notMNIST": self.notmnist_steps}[domain]
        log_every = self.log_every if domain == "MNIST" else max(self.log_every, steps // 3)
        return Schedule(steps, self.batch_size, self.lr, log_every, self.precision, self.batches)


NARROW = RossCNN(filters=(8, 16), hidden=128)
SCALES = {
    "smoke": Scale(
        name="smoke",
        data=Digits(),
        steps=120,
        small_steps=300,
        batch_size=64,
        lr=1e-3,
        lambdas=(PAPER_LAMBDA / 100,),
        certainty=(CERTAINTY_LAMBDA / 10,),
        log_every=40,
        explained=20,
        measured=100,
        attacked=200,
        validated=None,
        transferred=100,
        svhn=Domain(
            name="SVHN",
            data=Glyphs(train=1000, validation=200, test=200, clutter=12, noise=0.1, seed=1),
            images=60,
            lambdas=(SVHN_LAMBDA / 100,),
            certainty=(CERTAINTY_LAMBDA / 10,),
            both=(SVHN_LAMBDA / 100,),
            range=SVHN_RANGE,
            model=RossCNN(filters=(8, 16), hidden=128, lcn=True),
            stands_in="1,000 drawn letters over much clutter for SVHN, in the units of its images",
        ),
        svhn_steps=60,
        notmnist=Domain(
            name="notMNIST",
            data=Glyphs(train=1000, validation=200, test=200),
            images=60,
            lambdas=(NOTMNIST_LAMBDA / 10,),
            certainty=(NOTMNIST_CERTAINTY,),
            model=NARROW,
            stands_in="1,000 drawn letters for notMNIST, tested on other fonts",
        ),
        notmnist_steps=60,
        penalised=(SVHN_LAMBDA / 1000, SVHN_LAMBDA / 100),
        penalised_schedule=Schedule(30, 32, 1e-3, 30, "float32", "together"),
        seeds=(1,),
        strong_images=10,
        batches="together",
        model=NARROW,
        stands_in="1,797 small digits for MNIST",
        choices=(
            (
                "Data",
                "scikit-learn's 1,797 handwritten digits scaled to 28x28 stand in for MNIST, drawn letters for "
                "notMNIST, and letters over much clutter, with local contrast normalisation, for SVHN",
            ),
            (
                "Schedule",
                "120 batches of 64 at learning rate 1e-3, for the paper's 15,000 of 256 at 2e-4; 60 for the two other "
                "data sets, 30 of 32 for Figure 9: a minute, not hours",
            ),
            ("Network", "8 and 16 filters and 128 units for the paper's 32, 64 and 1,024"),
            (
                "Adversarial training",
                "clean and adversarial images share one batch: with the authors' separate batches the running "
                "statistics of batch normalisation fit neither kind on 1,197 images, and clean accuracy in eval mode "
                "falls to chance",
            ),
            ("Lambda", "hundredths and tenths of the paper's, the largest that so short a schedule learns under"),
        ),
    ),
    "small": Scale(
        name="small",
        data=MNIST(),
        steps=400,
        small_steps=200,
        batch_size=128,
        lr=1e-3,
        lambdas=(PAPER_LAMBDA / 100, PAPER_LAMBDA / 10, PAPER_LAMBDA),
        certainty=(CERTAINTY_LAMBDA,),
        log_every=50,
        explained=60,
        measured=500,
        attacked=1000,
        validated=1000,
        transferred=500,
        svhn=Domain(
            name="SVHN",
            data=SVHNRoss(),
            images=500,
            lambdas=(SVHN_LAMBDA,),
            certainty=(CERTAINTY_LAMBDA,),
            both=(SVHN_LAMBDA,),
            range=SVHN_RANGE,
            model=RossCNN(lcn=True),
            stands_in="7,000 of SVHN's test images for its training part",
        ),
        svhn_steps=300,
        notmnist=Domain(
            name="notMNIST",
            data=Glyphs(),
            images=500,
            lambdas=(NOTMNIST_LAMBDA,),
            certainty=(NOTMNIST_CERTAINTY,),
            stands_in="10,000 drawn letters for notMNIST, tested on other fonts",
        ),
        notmnist_steps=200,
        penalised=(SVHN_LAMBDA / 100, SVHN_LAMBDA / 10, SVHN_LAMBDA),
        penalised_schedule=Schedule(150, 64, 1e-3, 150, "bfloat16"),
        seeds=(1, 2),
        strong_images=200,
        precision="bfloat16",
        choices=(
            (
                "Data",
                "MNIST, 55,000 training images, the first 5,000 for validation. Of SVHN only 10,000 test images are "
                "here: 7,000 train, 1,001 choose, 1,999 test. Letters A to J, drawn over clutter and tested on a font "
                "family that training lacks, stand in for notMNIST",
            ),
            (
                "Schedule",
                "400 batches of 128 (MNIST), 300 (SVHN), 200 (letters) at learning rate 1e-3, for the paper's 15,000 "
                "of 256 at 2e-4: what one core does in an hour. Networks are far from converged, the strongly "
                "regularised ones most",
            ),
            ("Precision", "training in bfloat16 (autocast), which is faster here; everything is measured in float32"),
            (
                "Lambda",
                "MNIST 1.1, 11 and 109.8, SVHN 19.5, letters 1.1, and for the 1/K penalty 1.95, 1.95 and .35: what "
                "the authors selected (56234.13, 10000, 562.34 and 1000, 1000, 177.83 in their code's units)",
            ),
            (
                "Test images",
                "the first 1,000 for the lambdas on MNIST, 500 for Figures 1 to 4 on each data set (the authors' "
                "notebook has 256), 200 under AutoAttack",
            ),
        ),
    ),
    "paper": Scale(
        name="paper",
        data=MNIST(),
        steps=15_000,
        small_steps=15_000,
        batch_size=256,
        lr=2e-4,
        lambdas=SWEEP,
        certainty=CERTAINTY_SWEEP,
        log_every=100,
        explained=200,
        measured=10_000,
        attacked=None,
        validated=None,
        transferred=10_000,
        svhn=Domain(
            name="SVHN",
            data=SVHNRoss(),
            images=26_032,
            lambdas=SWEEP,
            certainty=CERTAINTY_SWEEP,
            both=SWEEP,
            range=SVHN_RANGE,
            model=RossCNN(lcn=True),
        ),
        svhn_steps=15_000,
        notmnist=Domain(
            name="notMNIST",
            data=NotMNIST(),
            images=10_000,
            lambdas=SWEEP,
            certainty=CERTAINTY_SWEEP,
            range=(-0.5, 0.5),
        ),
        notmnist_steps=15_000,
        penalised=tuple(10 ** (k / 2) / CODE_UNITS for k in range(11)),
        penalised_schedule=Schedule(15_000, 256, 2e-4, 100),
        seeds=(1, 2),
        strong_images=1000,
        choices=(
            (
                "Data",
                "MNIST, SVHN (train and extra, 6,000 for validation, 200,000 for training) and notMNIST (200,000 for "
                "training), as the authors cut them; all test images",
            ),
            ("Schedule", "the paper's: 15,000 batches of 256, Adam at 2e-4 with epsilon 1e-4; teachers 10,000 batches"),
            (
                "Lambda",
                "the 13 values of the authors' sweeps in their code's units, /512 here: 10^2 to 10^5 for double "
                "backpropagation, 10^0 to 10^3 for the 1/K penalty; Figure 9, 10^0 to 10^5 for all four",
            ),
        ),
    ),
}

COMMON_CHOICES = (
    ("Optimiser", "Adam with epsilon 1e-4 added as TensorFlow does (epsilon hat), since the authors used it"),
    ("Order", "batches are shuffled every epoch; the authors' code goes through the data in order"),
    (
        "Units of SVHN",
        "images with global contrast normalisation have no [0, 1]: eps and lambda are in standard deviations, and "
        "divided by the width 13.46 of the values' range (lambda by its square). That is the range of the test images "
        "that are here; a page on other images says where theirs differs",
    ),
    ("Grey", "Grundland & Dodgson 2007, which the paper cites; its code takes plain luma"),
    ("Local contrast", "normalised image by image, as Jarrett et al. 2009 do; the authors' code averages over batches"),
    (
        "Selection of lambda",
        "highest validation accuracy on FGSM examples made for the normal network (mean over eps .1, .2, .3) among "
        "networks that keep 97 % of its clean validation accuracy, the most accurate one if none does; the authors' "
        "code selects on test images",
    ),
    ("Distillation", "T = 50, evaluated and attacked at T = 1 in float32, as the authors do (the text says T = 0)"),
    (
        "Own probabilities",
        "in H(yhat) of Figure 9 gradients flow through both yhat; with the first held fixed the penalty is 0 by "
        "identity, and training is plain",
    ),
    ("Stability", "maps of the true class before and after PGD (eps 0.1, 20 steps), which the paper does not have"),
    ("CAM", "the paper's network has no linear head on pooled features; the Small network of Boopathy et al. has"),
)
