"""Metrics: functions of tensors that say how robust a network is and how stable its explanations are."""

from pellucid.metrics.faithfulness import FaithfulnessCurve, deletion, insertion
from pellucid.metrics.gradients import GradientNorms, gradient_norms, log_probabilities
from pellucid.metrics.localisation import (
    average_precision,
    chance,
    mass_on_object,
    pointing_game,
    rank_accuracy,
    roc_auc,
)
from pellucid.metrics.map_evidence import evidence
from pellucid.metrics.map_stability import (
    AttackStability,
    NoiseStability,
    stability_under_attack,
    stability_under_noise,
)
from pellucid.metrics.maps import Stability, kendall_tau, stability
from pellucid.metrics.overlap import misclassification_overlap
from pellucid.metrics.perturbation import relative_perturbation, rho_adv
from pellucid.metrics.randomisation import Randomisation, model_randomisation
from pellucid.metrics.robustness import (
    accuracy,
    accuracy_curve,
    adversarial_grid,
    predict,
    transfer_matrix,
    transfer_predictions,
)
from pellucid.metrics.statistics import Interval, bootstrap_mean, wilson
from pellucid.metrics.unforeseen import CALIBRATED, Calibration, adversarial_test_accuracy, unforeseen_attack_robustness

__all__ = [
    "CALIBRATED",
    "AttackStability",
    "Calibration",
    "FaithfulnessCurve",
    "GradientNorms",
    "Interval",
    "NoiseStability",
    "Randomisation",
    "Stability",
    "accuracy",
    "accuracy_curve",
    "adversarial_grid",
    "adversarial_test_accuracy",
    "average_precision",
    "bootstrap_mean",
    "chance",
    "deletion",
    "evidence",
    "gradient_norms",
    "insertion",
    "kendall_tau",
    "log_probabilities",
    "mass_on_object",
    "misclassification_overlap",
    "model_randomisation",
    "pointing_game",
    "predict",
    "rank_accuracy",
    "relative_perturbation",
    "rho_adv",
    "roc_auc",
    "stability",
    "stability_under_attack",
    "stability_under_noise",
    "transfer_matrix",
    "transfer_predictions",
    "unforeseen_attack_robustness",
    "wilson",
]
