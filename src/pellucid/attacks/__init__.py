"""Attacks: images that a network misclassifies, made from images that it classifies."""

from pellucid.attacks.elastic import Elastic
from pellucid.attacks.deepfool import DeepFool
from pellucid.attacks.aai import AAI
from pellucid.attacks.apgd import APGD
from pellucid.attacks.epsilon import has_eps, with_eps
from pellucid.attacks.fgsm import FGSM
from pellucid.attacks.isa import ISA, minimum_eps
from pellucid.attacks.fog import Fog
from pellucid.attacks.gabor import Gabor
from pellucid.attacks.jpeg import JPEG
from pellucid.attacks.jsma import JSMA
from pellucid.attacks.learned import Learner, Taught, is_learner
from pellucid.attacks.pgd import PGD
from pellucid.attacks.snow import Snow
from pellucid.attacks.square import Square
from pellucid.attacks.stadv import StAdv

__all__ = [
    "AAI",
    "ISA",
    "minimum_eps",
    "APGD",
    "DeepFool",
    "FGSM",
    "JPEG",
    "JSMA",
    "PGD",
    "Elastic",
    "Fog",
    "Gabor",
    "Learner",
    "Snow",
    "Square",
    "StAdv",
    "Taught",
    "has_eps",
    "is_learner",
    "with_eps",
]
