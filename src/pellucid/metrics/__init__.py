"""Metrics: functions of tensors that say how robust a network is and how stable its explanations are."""

from pellucid.metrics.gradients import GradientNorms, gradient_norms, log_probabilities
from pellucid.metrics.maps import Stability, kendall_tau, stability
from pellucid.metrics.robustness import (
    accuracy,
    accuracy_curve,
    adversarial_grid,
    predict,
    transfer_matrix,
    transfer_predictions,
)
from pellucid.metrics.statistics import Interval, bootstrap_mean, wilson

__all__ = [
    "GradientNorms",
    "Interval",
    "Stability",
    "accuracy",
    "accuracy_curve",
    "adversarial_grid",
    "bootstrap_mean",
    "gradient_norms",
    "kendall_tau",
    "log_probabilities",
    "predict",
    "stability",
    "transfer_matrix",
    "transfer_predictions",
    "wilson",
]
