"""Networks: the Classifier base, the papers' architectures as descriptions, and adapters for anybody else's."""

from pellucid.models.adapt import Adapted, adapt
from pellucid.models.boopathy import BoopathyWResNet, PoolCNN, SmallCNN
from pellucid.models.checkpoint import load_classifier, save_classifier
from pellucid.models.classifier import Classifier
from pellucid.models.hub import load_from_hub, push_to_hub
from pellucid.models.jakubovitz import JakubovitzCNN, TutorialCNN
from pellucid.models.per_image import PerImage
from pellucid.models.preact_resnet import PreActResNet18
from pellucid.models.pretrained import load_torchvision
from pellucid.models.resnet import ResNet18
from pellucid.models.ross import RossCNN
from pellucid.models.wide_resnet import WideResNet
from pellucid.weights import read_weights

__all__ = [
    "Adapted",
    "BoopathyWResNet",
    "Classifier",
    "JakubovitzCNN",
    "PerImage",
    "PoolCNN",
    "PreActResNet18",
    "ResNet18",
    "RossCNN",
    "SmallCNN",
    "TutorialCNN",
    "WideResNet",
    "adapt",
    "load_classifier",
    "load_from_hub",
    "load_torchvision",
    "push_to_hub",
    "read_weights",
    "save_classifier",
]
