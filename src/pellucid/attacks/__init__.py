"""Attacks: images that a network misclassifies, made from images that it classifies."""

from pellucid.attacks.epsilon import has_eps, with_eps
from pellucid.attacks.fgsm import FGSM
from pellucid.attacks.jsma import JSMA
from pellucid.attacks.learned import Learner, Taught, is_learner
from pellucid.attacks.pgd import PGD

__all__ = [
    "FGSM",
    "JSMA",
    "PGD",
    "Learner",
    "Taught",
    "has_eps",
    "is_learner",
    "with_eps",
]
