"""Weights that somebody else trained, under torchvision's names."""

import hashlib
import logging
import re
from pathlib import Path

import torch
from torch import Tensor

from pellucid.errors import CheckpointError
from pellucid.models.checkpoint import is_pickle, load_weights, read_weights
from pellucid.models.classifier import Classifier

log = logging.getLogger("pellucid.models")

_ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+)(@(?P<revision>.+))?")


def local_file(place: str | Path) -> Path:
    """Return a file that is here, or one of the Hugging Face hub, hf://OWNER/NAME/FILE[@REVISION], fetched.

    Raises CheckpointError where there is none.
    """
    if not str(place).startswith("hf://"):
        if not Path(place).is_file():
            raise CheckpointError(f"there is no weights file {place}")
        return Path(place)
    address = _ADDRESS.fullmatch(str(place))
    if address is None:
        raise CheckpointError(f"{place} names no file of the hub: write hf://OWNER/NAME/FILE, with @REVISION if wanted")
    try:
        from huggingface_hub import hf_hub_download  # late: only who downloads pays for the import

        return Path(hf_hub_download(address["repo"], address["file"], revision=address["revision"]))
    except Exception as error:  # the client raises errors of its own, of its HTTP library and of the system
        raise CheckpointError(
            f"{place} could not be fetched ({type(error).__name__}): see that the name is right and that the hub can "
            "be reached, or name a file that is here"
        ) from error


def content_digest(place: str | Path) -> str:
    """Return the SHA-256 (hex) of a file, here or on the hub."""
    with open(local_file(place), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors from a safetensors file, or from torch.save's without running any code that lies in it.

    Raises CheckpointError for what holds code or anything but named tensors, and for what is damaged.
    """
    if not is_pickle(path):
        return read_weights(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler, of the archive, of the system
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, whose reading could run code ({error!s:.100})"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in found.items()):
        raise CheckpointError(f"{path} is no table of named tensors (a state_dict); save that alone")
    return {key: value.detach() for key, value in found.items()}


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
