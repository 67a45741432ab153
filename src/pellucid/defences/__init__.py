"""Defences: what a network is trained to minimise, and on which images."""

from pellucid.defences.adversarial import AdversarialTraining
from pellucid.defences.combine import Phases, Sum
from pellucid.defences.distillation import Distillation
from pellucid.defences.double_backprop import DoubleBackprop
from pellucid.defences.fast import FastAdversarialTraining
from pellucid.defences.ig_norm import IGNorm, IGSumNorm, path_attribution
from pellucid.defences.interpretability import InterpretabilityAware
from pellucid.defences.presets import INTERPRETABILITY_AWARE
from pellucid.defences.semi_supervised import SemiSupervised
from pellucid.defences.standard import Standard
from pellucid.defences.teacher import with_teachers
from pellucid.defences.trades import TRADES

__all__ = [
    "INTERPRETABILITY_AWARE",
    "TRADES",
    "AdversarialTraining",
    "Distillation",
    "DoubleBackprop",
    "FastAdversarialTraining",
    "IGNorm",
    "IGSumNorm",
    "InterpretabilityAware",
    "Phases",
    "SemiSupervised",
    "Standard",
    "Sum",
    "path_attribution",
    "with_teachers",
]
