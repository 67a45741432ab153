"""Networks on disk: a folder with weights (safetensors) and config.json. Nothing is ever unpickled."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pellucid.errors import CheckpointError
from pellucid.models.classifier import Classifier
from pellucid.spec import from_dict, to_dict

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_classifier(
    folder: Path, network: Classifier, spec: Any, shape: tuple[int, int, int], classes: tuple[str, ...]
) -> None:
    """Write a network and what is needed to build it again: its description, image shape (C, H, W) and classes."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(tensors))
    config = {"model": to_dict(spec), "shape": list(shape), "classes": list(classes)}
    (folder / CONFIG).write_text(json.dumps(config, indent=1))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors from a safetensors file; raise CheckpointError for anything else, pickles included."""
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    with open(path, "rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80" or start == b"PK":
        raise CheckpointError(f"{path} is a pickle (.pt/.pth), which can run code when read; convert it to safetensors")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is corrupt or truncated ({error})") from None


def load_weights(network: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Load weights into a network; raise CheckpointError that names the first difference if they do not fit."""
    own = network.state_dict()
    for key in sorted(own.keys() | weights.keys()):
        have = tuple(weights[key].shape) if key in weights else "missing"
        need = tuple(own[key].shape) if key in own else "not part of it"
        if have != need:
            raise CheckpointError(f"{origin} is of another network: {key} is {have} in the file, {need} in the network")
    network.load_state_dict(weights)


def load_classifier(path: str | Path) -> Classifier:
    """Load a network from a checkpoint folder, in eval mode, on CPU.

    Raises CheckpointError if it is missing, corrupt, truncated, of another network or a pickle.
    """
    return load_with_config(Path(path))[0]


def load_with_config(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Load a network and its config: description, image shape (C, H, W), classes."""
    folder = path if path.is_dir() else path.parent
    weights = read_weights(path if path.is_file() else folder / WEIGHTS)
    if path.is_file() and path.name != WEIGHTS:
        raise CheckpointError(
            f"{path} is not called {WEIGHTS}; name the folder of a checkpoint, {WEIGHTS} and {CONFIG}"
        )
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        channels, height, width = (int(side) for side in config["shape"])
        classes = len(tuple(config["classes"]))
        spec = from_dict(config["model"], "model")
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {CONFIG}, so the network cannot be built") from None
    except (ValueError, KeyError, TypeError) as error:  # no JSON, no text, other fields, an unknown network
        raise CheckpointError(f"{folder / CONFIG} is corrupt ({error})") from None
    network: Classifier = spec.build(channels, (height, width), classes)
    load_weights(network, weights, str(folder))
    return network.eval(), config
