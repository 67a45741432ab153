"""Files of weights, own and others': found here or on the hub, checked by digest, read without running any code."""

import hashlib
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pellucid.errors import CheckpointError

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


def described_file(place: str | Path, sha256: str) -> Path:
    """Return the file at a place; raise CheckpointError if it is missing or has another SHA-256 than described."""
    found = content_digest(place)
    if found != sha256:
        raise CheckpointError(
            f"{place} is not the file it was when it was described (sha256 {found[:12]} now, {sha256[:12]} then)"
        )
    return local_file(place)


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors from a safetensors file; raise CheckpointError for anything else, pickles included."""
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    if is_pickle(path):
        raise CheckpointError(f"{path} is a pickle (.pt/.pth), which can run code when read; convert it to safetensors")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is corrupt or truncated ({error})") from None


def is_pickle(path: Path) -> bool:
    """Say whether a file starts as those of torch.save do, and not as safetensors: a length, then a table."""
    with open(path, "rb") as file:
        start = file.read(9)
    return (start[:1] == b"\x80" or start[:2] == b"PK") and start[8:] != b"{"


def load_weights(network: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Load weights into a network; raise CheckpointError that names the first difference if they do not fit."""
    own = network.state_dict()
    for key in sorted(own.keys() | weights.keys()):
        have = tuple(weights[key].shape) if key in weights else "missing"
        need = tuple(own[key].shape) if key in own else "not part of it"
        if have != need:
            raise CheckpointError(f"{origin} is of another network: {key} is {have} in the file, {need} in the network")
        found, kind = weights[key].dtype, own[key].dtype
        if found.is_floating_point != kind.is_floating_point:
            raise CheckpointError(f"{origin} is not usable: {key} is {found} in the file, {kind} in the network")
    bad = next((key for key, value in weights.items() if not bool(torch.isfinite(value).all())), None)
    if bad is not None:
        raise CheckpointError(f"{origin} is not usable: {bad} is not finite, as after training that blew up")
    if "std" in weights and bool((weights["std"] <= 0).any()):
        raise CheckpointError(f"{origin} is not usable: std must be positive")
    network.load_state_dict(weights)
