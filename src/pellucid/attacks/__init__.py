"""Attacks: images that a network misclassifies, made from images that it classifies."""

from pellucid.attacks.aai import AAI
from pellucid.attacks.apgd import APGD
from pellucid.attacks.autoattack import AutoAttack
from pellucid.attacks.carlini_wagner import CarliniWagner
from pellucid.attacks.combine import Restarts, Worst
from pellucid.attacks.deepfool import DeepFool
from pellucid.attacks.elastic import Elastic
from pellucid.attacks.epsilon import has_eps, with_eps
from pellucid.attacks.fab import FAB
from pellucid.attacks.fgsm import FGSM
from pellucid.attacks.fog import Fog
from pellucid.attacks.frank_wolfe import FrankWolfeL1
from pellucid.attacks.gabor import Gabor
from pellucid.attacks.generator import GenerativePerturbation
from pellucid.attacks.isa import ISA, minimum_eps
from pellucid.attacks.iterated_fgsm import IteratedFGSM
from pellucid.attacks.iterated_tgsm import IteratedTGSM
from pellucid.attacks.jpeg import JPEG
from pellucid.attacks.jsma import JSMA
from pellucid.attacks.learned import Learner, Taught, is_learner
from pellucid.attacks.masking import MASKING, RobustnessWarning, checks
from pellucid.attacks.pgd import PGD
from pellucid.attacks.snow import Snow
from pellucid.attacks.square import Square
from pellucid.attacks.stadv import StAdv
from pellucid.attacks.tgsm import TGSM
from pellucid.attacks.universal import UniversalPerturbation
from pellucid.maths.notes import noted

__all__ = [
    "AAI",
    "APGD",
    "FAB",
    "FGSM",
    "ISA",
    "JPEG",
    "JSMA",
    "MASKING",
    "PGD",
    "TGSM",
    "AutoAttack",
    "CarliniWagner",
    "DeepFool",
    "Elastic",
    "Fog",
    "FrankWolfeL1",
    "Gabor",
    "GenerativePerturbation",
    "IteratedFGSM",
    "IteratedTGSM",
    "Learner",
    "Restarts",
    "RobustnessWarning",
    "Snow",
    "Square",
    "StAdv",
    "Taught",
    "UniversalPerturbation",
    "Worst",
    "checks",
    "has_eps",
    "is_learner",
    "minimum_eps",
    "noted",
    "with_eps",
]
