"""Networks on disk: a folder with weights (safetensors) and config.json. Nothing is ever unpickled."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from pellucid.errors import CheckpointError, InputError
from pellucid.models.classifier import Classifier
from pellucid.spec import from_dict, to_dict
from pellucid.weights import load_weights, read_weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_classifier(
    folder: Path, network: Classifier, spec: Any, shape: tuple[int, int, int], classes: tuple[str, ...]
) -> None:
    """Write a network and what is needed to build it again: its description, image shape (C, H, W) and classes."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(tensors))
    elsewhere = {
        f.name for f in dataclasses.fields(spec) if not f.metadata.get("hashed", True)
    }  # paths of this machine
    model = {key: value for key, value in to_dict(spec).items() if key not in elsewhere}
    config = {"model": model, "shape": list(shape), "classes": list(classes)}
    (folder / CONFIG).write_text(json.dumps(config, indent=1))


def load_classifier(path: str | Path, *, device: str | torch.device = "cpu") -> Classifier:
    """Load a network from a checkpoint folder, or from hf://owner/name[@revision], in eval mode, on a device.

    It is an nn.Module that takes images (N, C, H, W) in [0, 1] and gives logits (N, K). Raises CheckpointError if it
    is missing, corrupt, truncated, of another network or a pickle, InputError if there is no such device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"there is no device {str(device)!r} here; cpu always works") from None
    return load_with_config(path)[0].to(device)


def load_with_config(path: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """Load a network and its config: description, image shape (C, H, W), classes."""
    folder = checkpoint_folder(path)
    weights = read_weights(folder / WEIGHTS)
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        shape, classes = config["shape"], config["classes"]
        if not (len(shape) == 3 and all(type(side) is int and 0 < side < 100_000 for side in shape)):
            raise ValueError(f"shape must be channels, height and width, not {shape}")
        if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
            raise ValueError("classes must be a list of names")
        spec = from_dict(config["model"], "model")
        spec = spec.blank() if hasattr(spec, "blank") else spec  # the weights it started from need not be here
        network: Classifier = spec.build(shape[0], (shape[1], shape[2]), len(classes))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {CONFIG}, so the network cannot be built") from None
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:  # also: too deep, too large
        raise CheckpointError(f"{folder / CONFIG} is corrupt ({error})") from None
    load_weights(network, weights, str(folder))
    return network.eval(), config


def checkpoint_folder(path: str | Path) -> Path:
    """Return the folder of a checkpoint, named itself, by its weights or by its address hf://owner/name[@revision].

    Raises CheckpointError for anything else.
    """
    if str(path).startswith("hf:/"):
        from pellucid.models.hub import fetch, parse  # late: it reads checkpoints itself

        return fetch(*parse(str(path)))
    path = Path(path)
    try:
        if path.is_dir():
            return path
        if path.is_file():
            read_weights(path)  # a pickle or a damaged file is called what it is
            if path.name == WEIGHTS:
                return path.parent
            raise CheckpointError(f"{path} is not a checkpoint folder (with {WEIGHTS} and {CONFIG}); name the folder")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    raise CheckpointError(f"there is no checkpoint at {path}; pellucid train prints the folder of the one it makes")
