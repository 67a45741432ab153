"""Data sets: descriptions whose `load(part)` gives images, labels and where they come from."""

from pellucid.data.augment import Augmentation, AugmentationField, CropAndFlip, RandomCrop
from pellucid.data.blank import Blank
from pellucid.data.catalogue import (
    CIFAR10,
    CIFAR100,
    MNIST,
    SVHN,
    Caltech256,
    FashionMNIST,
    RestrictedImageNet,
    TinyImageNet,
)
from pellucid.data.digits import Digits
from pellucid.data.drawn import Drawn
from pellucid.data.encoded import Encoded
from pellucid.data.folder import Folder
from pellucid.data.glyphs import Glyphs
from pellucid.data.notmnist import NotMNIST
from pellucid.data.pictures import Pictures
from pellucid.data.root import data_root, set_data_root
from pellucid.data.samples import StylePaintings, TinyImageNet20
from pellucid.data.split import Split
from pellucid.data.styles import StyleImages
from pellucid.data.svhn import SVHNRoss
from pellucid.data.units import Converted, converted_eps, converted_weight

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "Augmentation",
    "AugmentationField",
    "Blank",
    "Caltech256",
    "Converted",
    "CropAndFlip",
    "Digits",
    "Drawn",
    "Encoded",
    "FashionMNIST",
    "Folder",
    "Glyphs",
    "NotMNIST",
    "Pictures",
    "RandomCrop",
    "RestrictedImageNet",
    "SVHNRoss",
    "Split",
    "StyleImages",
    "StylePaintings",
    "TinyImageNet",
    "TinyImageNet20",
    "converted_eps",
    "converted_weight",
    "data_root",
    "set_data_root",
]
