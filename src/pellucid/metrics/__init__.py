"""Metrics: functions of tensors that say how robust a network is and how stable its explanations are."""

from pellucid.maths.discrepancy import discrepancy, label_free_discrepancy
from pellucid.maths.gram import gram
from pellucid.metrics.bias import ShapeBias, accuracy_on_correct, shape_bias
from pellucid.metrics.completeness import CompletenessError, completeness_error
from pellucid.metrics.contours import contour_correlation
from pellucid.metrics.faithfulness import FaithfulnessCurve, deletion, insertion
from pellucid.metrics.gradients import (
    GradientNorms,
    Histogram,
    gradient_norms,
    log_probabilities,
    log_probability_histogram,
)
from pellucid.metrics.jacobian import jacobian_frobenius_norm
from pellucid.metrics.localisation import (
    average_precision,
    chance,
    mass_on_object,
    pointing_game,
    rank_accuracy,
    roc_auc,
)
from pellucid.metrics.map_discrepancy import interpretation_discrepancy
from pellucid.metrics.map_evidence import evidence
from pellucid.metrics.map_stability import (
    AttackStability,
    NoiseStability,
    stability_under_attack,
    stability_under_noise,
)
from pellucid.metrics.maps import Stability, kendall_tau, spearman, stability, top_k_intersection
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
from pellucid.metrics.saliency_distance import map_size, saliency_distance
from pellucid.metrics.sparsity import sparsity
from pellucid.metrics.statistics import Interval, bootstrap_mean, wilson
from pellucid.metrics.style import NamedLayers, RandomTextures, colour_matched, edge_correlation, gram_distance
from pellucid.metrics.unforeseen import CALIBRATED, Calibration, adversarial_test_accuracy, unforeseen_attack_robustness

__all__ = [
    "CALIBRATED",
    "AttackStability",
    "Calibration",
    "CompletenessError",
    "FaithfulnessCurve",
    "GradientNorms",
    "Histogram",
    "Interval",
    "NamedLayers",
    "NoiseStability",
    "RandomTextures",
    "Randomisation",
    "ShapeBias",
    "Stability",
    "accuracy",
    "accuracy_curve",
    "accuracy_on_correct",
    "adversarial_grid",
    "adversarial_test_accuracy",
    "average_precision",
    "bootstrap_mean",
    "chance",
    "colour_matched",
    "completeness_error",
    "contour_correlation",
    "deletion",
    "discrepancy",
    "edge_correlation",
    "evidence",
    "gradient_norms",
    "gram",
    "gram_distance",
    "insertion",
    "interpretation_discrepancy",
    "jacobian_frobenius_norm",
    "kendall_tau",
    "label_free_discrepancy",
    "log_probabilities",
    "log_probability_histogram",
    "map_size",
    "mass_on_object",
    "misclassification_overlap",
    "model_randomisation",
    "pointing_game",
    "predict",
    "rank_accuracy",
    "relative_perturbation",
    "rho_adv",
    "roc_auc",
    "saliency_distance",
    "shape_bias",
    "sparsity",
    "spearman",
    "stability",
    "stability_under_attack",
    "stability_under_noise",
    "top_k_intersection",
    "transfer_matrix",
    "transfer_predictions",
    "unforeseen_attack_robustness",
    "wilson",
]
