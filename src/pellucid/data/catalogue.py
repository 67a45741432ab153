"""The named data sets: where each is published and how it is cut."""

from dataclasses import dataclass, replace
from typing import ClassVar

from pellucid.data.cuts import SEED
from pellucid.data.folder import Side
from pellucid.data.published import Published, Sifted
from pellucid.data.source import Source
from pellucid.errors import SpecError
from pellucid.spec import Whole, register

DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SUPERCLASSES = (
    ("dog", 151, 268),
    ("cat", 281, 285),
    ("frog", 30, 32),
    ("turtle", 33, 37),
    ("bird", 80, 100),
    ("monkey", 365, 382),
    ("fish", 389, 397),
    ("crab", 118, 121),
    ("insect", 300, 319),
)


def _numbers(n: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(n))


@register("data", "mnist")
@dataclass(frozen=True, kw_only=True)
class MNIST(Published):
    """Handwritten digits, 28x28 grey; 55,000 / 5,000 / 10,000, validation being the first 5,000 of train.

    Source: LeCun et al. 1998; cut of Ross & Doshi-Velez 2018 and Boopathy et al. 2020.
    """

    source: ClassVar[Source] = Source("mnist", "ylecun/mnist", "mnist", channels=1, classes=DIGITS, first=5000)


@register("data", "fashion_mnist")
@dataclass(frozen=True, kw_only=True)
class FashionMNIST(Published):
    """Clothes, 28x28 grey; 55,000 / 5,000 / 10,000, cut like MNIST. Source: Xiao et al. 2017."""

    source: ClassVar[Source] = Source(
        "fashion_mnist",
        "zalando-datasets/fashion_mnist",
        "fashion_mnist",
        channels=1,
        classes=CLOTHES,
        first=5000,
    )


@register("data", "svhn")
@dataclass(frozen=True, kw_only=True)
class SVHN(Published):
    """House-number digits, 32x32 RGB; a tenth of train is the validation part.

    Where a local folder has the test split alone, it is cut in order at 70% and 80%, moved to the next
    change of `house_number`, so that no house is divided. Source: Netzer et al. 2011. Deviation: `extra` is
    left out.
    """

    source: ClassVar[Source] = Source(
        "svhn",
        "ufldl-stanford/svhn",
        "cropped_digits",
        channels=3,
        classes=DIGITS,
        group="house_number",
    )


@register("data", "cifar10")
@dataclass(frozen=True, kw_only=True)
class CIFAR10(Published):
    """Things and animals, 32x32 RGB; 45,000 / 5,000 / 10,000, validation being the first 5,000 of train.

    Source: Krizhevsky 2009; cut of Boopathy et al. 2020.
    """

    source: ClassVar[Source] = Source(
        "cifar10", "uoft-cs/cifar10", "plain_text", channels=3, classes=THINGS, first=5000
    )


@register("data", "cifar100")
@dataclass(frozen=True, kw_only=True)
class CIFAR100(Published):
    """A hundred fine classes (not the twenty coarse ones), 32x32 RGB; cut like CIFAR-10. Source: Krizhevsky 2009."""

    source: ClassVar[Source] = Source(
        "cifar100",
        "uoft-cs/cifar100",
        "cifar100",
        channels=3,
        classes=_numbers(100),
        label="fine_label",
        first=5000,
    )


@register("data", "tiny_imagenet")
@dataclass(frozen=True, kw_only=True)
class TinyImageNet(Sifted):
    """Two hundred ImageNet classes, 64x64 RGB; test is the published validation split.

    Validation is a tenth of train. Grey images become RGB. `size` resizes them bilinearly: 224 with the augmentation
    "flip" is what Zhang & Zhu 2019 train on. Their per-image standardisation belongs to the network, as all
    normalisation does. unreadable=skip leaves out images that cannot be read. Source: Stanford CS231n.
    """

    source: ClassVar[Source] = Source(
        "tiny_imagenet",
        "zh-plus/tiny-imagenet",
        test=("valid", "test", "validation"),
        channels=3,
        classes=_numbers(200),
    )

    size: Side | None = None

    def described(self) -> Source:
        """Return what is known of the set, with its options."""
        return replace(super().described(), size=None if self.size is None else (self.size, self.size))


@register("data", "caltech256")
@dataclass(frozen=True, kw_only=True)
class Caltech256(Sifted):
    """Objects in 257 categories, clutter included; RGB, shorter side scaled to 256, centre 256x256.

    `crop` (224) shows the centre of that, and keeps the frame around for the augmentation random_crop size=224, by
    which training images are cut at random and mirrored. Of the class folders (256_ObjectCategories in the data root),
    or any single split, a fifth of each class, rounded down, is drawn with `seed` for test and a tenth for
    validation; the hub has splits of its own. unreadable=skip leaves out images that cannot be read.

    Source: Griffin et al. 2007, as used by Zhang & Zhu 2019 (authors' code).
    Deviations: the authors draw their fifth without a seed and have no validation part; the longer side is cropped
    before any random crop.
    """

    source: ClassVar[Source] = Source(
        "caltech256",
        "ilee0022/Caltech-256",
        train=("train", "256_ObjectCategories"),
        validation=("validation",),
        tree=True,
        channels=3,
        size=(256, 256),
        fit="crop",
        classes=_numbers(257),
    )

    crop: Side | None = None
    seed: Whole = SEED

    def check(self) -> None:
        """Refuse crops that have no place in the middle of 256 pixels."""
        if self.crop is not None and (self.crop > 256 or self.crop % 2):
            raise SpecError(f"data caltech256.crop must be an even number up to 256, not {self.crop}")

    def described(self) -> Source:
        """Return what is known of the set, with its options."""
        return replace(super().described(), fifth=self.seed, margin=(256 - (self.crop or 256)) // 2)


@register("data", "restricted_imagenet")
@dataclass(frozen=True, kw_only=True)
class RestrictedImageNet(Sifted):
    """Nine superclasses of ImageNet, RGB, resized plainly to 224x224; test is ImageNet's validation split.

    The data root holds it as parquet files, or as ImageNet's folders (restricted_imagenet or imagenet, in it train and
    val, in each the 1,000 class folders, whose alphabetical order numbers the classes; other numbers of folders are
    refused). Only the superclasses' files are looked at, and they stay encoded until asked for. unreadable=skip leaves
    out images that cannot be read.

    Source: Tsipras et al. 2019, as used by Boopathy et al. 2020.
    """

    source: ClassVar[Source] = Source(
        "restricted_imagenet",
        "ILSVRC/imagenet-1k",
        test=("validation", "val"),
        folders=("imagenet",),
        tree=True,
        channels=3,
        size=(224, 224),
        superclasses=SUPERCLASSES,
    )
