"""Functions of tensors: balls, per-example losses, the ascent loop, class activation maps, counted passes."""

from pellucid.maths.ascent import Step, ascend
from pellucid.maths.balls import fill_l1, project, random_start, steepest
from pellucid.maths.cam import cam
from pellucid.maths.losses import certainty_entropy, cross_entropy, dlr, log_probability, margin, targeted_dlr
from pellucid.maths.passes import Passes, counted, gradient

__all__ = [
    "Passes",
    "Step",
    "ascend",
    "cam",
    "certainty_entropy",
    "counted",
    "cross_entropy",
    "dlr",
    "fill_l1",
    "gradient",
    "log_probability",
    "margin",
    "project",
    "random_start",
    "steepest",
    "targeted_dlr",
]
