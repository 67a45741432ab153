"""The named data sets: where each is published and how it is cut."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.data.published import Published
from pellucid.data.source import Source
from pellucid.spec import register

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


@register("data", "notmnist")
@dataclass(frozen=True, kw_only=True)
class NotMNIST(Published):
    """Letters A to J of many fonts, 28x28 grey (the small set); in the papers' units they span [-0.5, 0.5].

    Source: Bulatov 2011. Deviation: Ross & Doshi-Velez 2018 train on 200,000 images of the large set.
    """

    source: ClassVar[Source] = Source(
        "notmnist",
        "anubhavmaity/notMNIST",
        channels=1,
        classes=tuple("ABCDEFGHIJ"),
        value_range=(-0.5, 0.5),
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
    """A hundred fine classes, 32x32 RGB; cut like CIFAR-10. Source: Krizhevsky 2009."""

    source: ClassVar[Source] = Source(
        "cifar100",
        "uoft-cs/cifar100",
        "cifar100",
        channels=3,
        classes=_numbers(100),
        first=5000,
    )


@register("data", "tiny_imagenet")
@dataclass(frozen=True, kw_only=True)
class TinyImageNet(Published):
    """Two hundred ImageNet classes, 64x64 RGB; test is the published validation split.

    Validation is a tenth of train. Grey images become RGB. Source: Stanford CS231n.
    """

    source: ClassVar[Source] = Source(
        "tiny_imagenet",
        "zh-plus/tiny-imagenet",
        test=("valid", "test", "validation"),
        channels=3,
        classes=_numbers(200),
    )


@register("data", "caltech256")
@dataclass(frozen=True, kw_only=True)
class Caltech256(Published):
    """Objects in 257 categories, clutter included; RGB, shorter side scaled to 256, centre 256x256.

    Source: Griffin et al. 2007. Deviation: the published splits instead of an unseeded draw of a fifth per
    class (Etmann et al. released no seed), and the longer side is cropped before any random crop.
    """

    source: ClassVar[Source] = Source(
        "caltech256",
        "ilee0022/Caltech-256",
        validation=("validation",),
        channels=3,
        size=(256, 256),
        fit="crop",
        classes=_numbers(257),
    )


@register("data", "restricted_imagenet")
@dataclass(frozen=True, kw_only=True)
class RestrictedImageNet(Published):
    """Nine superclasses of ImageNet, RGB, resized plainly to 224x224; test is ImageNet's validation split.

    Source: Tsipras et al. 2019, as used by Boopathy et al. 2020. The images stay encoded until asked for.
    """

    source: ClassVar[Source] = Source(
        "restricted_imagenet",
        "ILSVRC/imagenet-1k",
        test=("validation",),
        channels=3,
        size=(224, 224),
        superclasses=SUPERCLASSES,
    )
