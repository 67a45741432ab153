"""Attacks: images that a network misclassifies, made from images that it classifies."""

from pellucid.attacks.epsilon import has_eps, with_eps
from pellucid.attacks.fgsm import FGSM
from pellucid.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "has_eps", "with_eps"]
