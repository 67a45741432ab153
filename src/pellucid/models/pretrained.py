"""Weights that somebody else trained, under torchvision's names."""

import logging
from pathlib import Path

from pellucid.models.classifier import Classifier
from pellucid.weights import load_weights, local_file, read_tensors

log = logging.getLogger("pellucid.models")


def load_torchvision(network: Classifier, place: str | Path) -> None:
    """Load the weights of torchvision's ResNet-18 (or another of two-convolution blocks) into a network of ResNet18.

    place: a safetensors or .pt/.pth file under torchvision's names, or hf://OWNER/NAME/FILE[@REVISION]. Where the
    file's last layer, fc, has another number of classes than the network, the network keeps its own, fresh one, and
    the log says so. mean and std stay as they are. Raises CheckpointError for files that cannot be read, or that are of
    another network, with the first difference.
    """
    own, found = network.state_dict(), read_tensors(local_file(place))
    weights = {key.replace("fc.", "head.", 1) if key.startswith("fc.") else key: v for key, v in found.items()}
    kept = ["mean", "std", *(key for key in own if key.endswith("num_batches_tracked") and key not in weights)]
    last, fresh = weights.get("head.weight"), own["head.weight"]
    if last is not None and last.shape[1:] == fresh.shape[1:] and len(last) != len(fresh):
        log.warning("%s has %d classes, the network %d: its last layer is new", place, len(last), len(fresh))
        kept += ["head.weight", "head.bias"]
    load_weights(network, weights | {key: own[key] for key in kept}, str(place))
