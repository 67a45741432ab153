"""Defences: what a network is trained to minimise, and on which images."""

from pellucid.defences.adversarial import AdversarialTraining
from pellucid.defences.certainty import CertaintyPenalty
from pellucid.defences.combine import Phases, Sum
from pellucid.defences.cross_lipschitz import CrossLipschitz
from pellucid.defences.curvature import CurvatureRegularization
from pellucid.defences.distillation import Distillation
from pellucid.defences.distilled_label import DistilledLabelPenalty
from pellucid.defences.double_backprop import DoubleBackprop
from pellucid.defences.entropy import EntropyPenalty
from pellucid.defences.fast import FastAdversarialTraining
from pellucid.defences.gradient_norm import GradientNorm
from pellucid.defences.ig_norm import IGNorm, IGSumNorm, path_attribution
from pellucid.defences.interpretability import InterpretabilityAware
from pellucid.defences.jacobian import JacobianRegularization
from pellucid.defences.logit_gradient import LogitGradientPenalty
from pellucid.defences.presets import INTERPRETABILITY_AWARE
from pellucid.defences.semi_supervised import SemiSupervised
from pellucid.defences.standard import Standard
from pellucid.defences.teacher import with_teachers
from pellucid.defences.trades import TRADES

__all__ = [
    "INTERPRETABILITY_AWARE",
    "TRADES",
    "AdversarialTraining",
    "CertaintyPenalty",
    "CrossLipschitz",
    "CurvatureRegularization",
    "Distillation",
    "DistilledLabelPenalty",
    "DoubleBackprop",
    "EntropyPenalty",
    "FastAdversarialTraining",
    "GradientNorm",
    "IGNorm",
    "IGSumNorm",
    "InterpretabilityAware",
    "JacobianRegularization",
    "LogitGradientPenalty",
    "Phases",
    "SemiSupervised",
    "Standard",
    "Sum",
    "path_attribution",
    "with_teachers",
]
