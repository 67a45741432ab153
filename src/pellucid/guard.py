"""The doors: what images and labels must be, and the promise that a model is left as it was found."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pellucid.errors import GradientError, InputError
from pellucid.protocols import Mode
from pellucid.rng import global_seed

_TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 1e-2}  # float32 and float64: 1e-6


def _ordinary(x: Tensor) -> Tensor:
    """Return x, or a copy of it if it was made under inference_mode: such a tensor cannot be differentiated."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()


@contextlib.contextmanager
def recording(graph: bool = True) -> Iterator[None]:
    """Have autograd record inside the block, also where the caller switched it off (no_grad, inference_mode).

    graph=False records nothing either, but makes tensors that others may record.
    """
    with torch.inference_mode(False), torch.set_grad_enabled(graph):
        yield


def check_images(x: Tensor) -> Tensor:
    """Return x, clamped within rounding, if it is a float (N, C, H, W) batch in [0, 1]; raise InputError if not."""
    if not isinstance(x, Tensor):
        raise InputError(f"images must be a torch tensor (N, C, H, W), not {type(x).__name__}")
    if x.ndim != 4:
        raise InputError(f"images must have four axes (N, C, H, W); this tensor has shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"images must be floating point in [0, 1], not {x.dtype}; divide 8-bit images by 255")
    x = _ordinary(x)
    if 0 in x.shape[1:]:
        raise InputError(f"images must have at least one channel and one pixel; this tensor has shape {tuple(x.shape)}")
    if x.numel() == 0:
        return x
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    tolerance = _TOLERANCE.get(x.dtype, 1e-6)
    if not (low >= -tolerance and high <= 1 + tolerance):  # also refuses NaN
        if low != low or high != high:
            cause = "it contains NaN"
        elif high > 2 and high <= 255 and low >= 0:
            cause = "it looks like 0..255 pixels: divide by 255"
        else:
            cause = "it looks normalised: leave the images in [0, 1] and give mean and std to the network"
        raise InputError(f"images must lie in [0, 1]; this batch spans [{low:.4g}, {high:.4g}], {cause}")
    return x if low >= 0 and high <= 1 else _ordinary(x.clamp(0, 1))


def check_labels(
    y: Tensor, n: int, classes: int | None = None, what: str = "labels", *, single: bool = False
) -> Tensor:
    """Return y as int64 if it holds n class numbers, (N,) or (N, M), below `classes`; raise InputError if not.

    single: only (N,) will do.
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"{what} must be an integer tensor of class numbers, not {kind}")
    if y.ndim not in (1, 2) or len(y) != n or (single and y.ndim != 1) or y.shape[1:] == (0,):
        rows = "be one number" if single else "have one row"
        raise InputError(f"{what} must {rows} per image ({n} here); got shape {tuple(y.shape)}")
    if y.numel():
        low, high = (int(v) for v in torch.aminmax(y))
        if low < 0 or (classes is not None and high >= classes):
            bound = f"0..{classes - 1}" if classes is not None else "0 or more"
            raise InputError(f"{what} must be {bound}; found {low if low < 0 else high}")
    return _ordinary(y.long())


def check_logits(logits: Tensor, x: Tensor) -> Tensor:
    """Return the logits (N, K) of images x if they are finite and, where x is to be differentiated, depend on it.

    Raises InputError if not. The weights must be frozen: they too would make the logits differentiable.
    """
    if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
        raise GradientError(
            "the network's output does not depend on its input (it was detached): no gradient reaches it"
        )
    if logits.ndim != 2 or len(logits) != len(x):
        raise InputError(
            f"the network must return logits (N, K), one row per image; got shape {tuple(logits.shape)} for {len(x)}"
        )
    wrong = len(logits) - int(logits.detach().isfinite().flatten(1).all(1).sum())
    if wrong:
        raise InputError(f"the network's logits are NaN or infinite for {wrong} of {len(logits)} images")
    return logits


def batches(x: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Return x in parts of up to `batch_size` rows, none where it has no row; raise InputError for sizes below 1."""
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    return torch.split(x, batch_size) if len(x) else ()


@contextlib.contextmanager
def frozen(model: nn.Module, mode: Mode = "eval", weights: bool = False, seed: int = 0) -> Iterator[None]:
    """Set the mode and freeze the weights inside the block; restore every flag and buffer, also after an exception.

    mode="train" serves attacks inside training that the papers run on batch statistics with dropout active:
    batch-norm statistics are put back, and dropout draws from a generator of its own, seeded by `seed`.
    weights=True leaves the weights' gradients on (maps that are differentiated in the parameters).
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    buffers = [
        (module, name, buffer)
        for module in (model.modules() if mode == "train" else ())
        for name, buffer in module.named_buffers(recurse=False)
    ]
    device = next((p.device for p, _ in flags), torch.device("cpu"))
    with contextlib.ExitStack() as stack:
        if mode == "train":
            stack.enter_context(global_seed(seed, device))
        try:
            model.train(mode == "train")
            for module, name, buffer in buffers:  # copies, since a graph may hold the originals
                setattr(module, name, buffer.clone())
            if not weights:
                for p, _ in flags:
                    p.requires_grad_(False)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for p, flag in flags:
                p.requires_grad_(flag)
            for module, name, buffer in buffers:
                setattr(module, name, buffer)


def reading(model: nn.Module, create_graph: bool) -> contextlib.AbstractContextManager[None]:
    """Freeze the model in eval mode while it is explained.

    With `create_graph` its mode and flags are the caller's: in training the maps are differentiated in the weights.
    """
    return contextlib.nullcontext() if create_graph else frozen(model)
