"""Functions of tensors: balls, losses, the ascent loop, maps and how far they move, Jacobians, counted passes."""

from pellucid.maths.ascent import Step, ascend
from pellucid.maths.balls import fill_l1, project, random_start, steepest
from pellucid.maths.cam import cam
from pellucid.maths.discrepancy import label_free_discrepancy
from pellucid.maths.jacobian import squared_frobenius
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
    "label_free_discrepancy",
    "log_probability",
    "margin",
    "project",
    "random_start",
    "squared_frobenius",
    "steepest",
    "targeted_dlr",
]
