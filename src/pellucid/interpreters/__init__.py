"""Interpreters: where in the image a network's decision comes from."""

from pellucid.interpreters.attack_difference import AttackDifference
from pellucid.interpreters.cam import CAM
from pellucid.interpreters.grad_cam import GradCAM
from pellucid.interpreters.grad_cam_plus_plus import GradCAMPlusPlus
from pellucid.interpreters.gradient import Gradient
from pellucid.interpreters.gradient_times_input import GradientTimesInput
from pellucid.interpreters.guided_backprop import GuidedBackprop
from pellucid.interpreters.guided_grad_cam import GuidedGradCAM
from pellucid.interpreters.integrated_gradients import IntegratedGradients
from pellucid.interpreters.smooth_grad import SmoothGrad

__all__ = [
    "CAM",
    "AttackDifference",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "GuidedGradCAM",
    "IntegratedGradients",
    "SmoothGrad",
]
