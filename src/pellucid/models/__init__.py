"""Networks: the Classifier base, the papers' architectures as descriptions, and adapters for anybody else's."""

from pellucid.models.adapt import Adapted, adapt
from pellucid.models.boopathy import SmallCNN
from pellucid.models.checkpoint import load_classifier, read_weights, save_classifier
from pellucid.models.classifier import Classifier
from pellucid.models.ross import RossCNN

__all__ = [
    "Adapted",
    "Classifier",
    "RossCNN",
    "SmallCNN",
    "adapt",
    "load_classifier",
    "read_weights",
    "save_classifier",
]
