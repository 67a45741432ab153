"""What defences that penalise derivatives share: a forward to be differentiated in the image, and the loss terms."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pellucid.defences.inner import some
from pellucid.guard import check_images, check_labels
from pellucid.maths.losses import cross_entropy
from pellucid.maths.passes import gradient
from pellucid.protocols import Context

Normalisation = Literal["paper", "paper_sum", "code"]


class Forward(NamedTuple):
    """One forward of a batch: images (N, C, H, W) as a leaf, labels (N,), logits (N, K), cross-entropies (N,).

    Within `again()` another forward has the same dropout masks, without which no two of them could be compared.
    """

    x: Tensor
    y: Tensor
    logits: Tensor
    losses: Tensor
    again: Callable[[], contextlib.AbstractContextManager[None]]


def forward(model: nn.Module, x: Tensor, y: Tensor, differentiable: bool = True) -> Forward:
    """Pass a checked batch through the network; the caller's images are left alone.

    differentiable=False where nothing is to be differentiated in the image, which a plain step then costs.
    Raises InputError for images outside [0, 1], labels out of range and empty batches.
    """
    x = check_images(x).detach().requires_grad_(differentiable)
    some(len(x), "a penalty on derivatives")
    again = replaying(x.device)
    logits = model(x)
    y = check_labels(y, len(x), logits.shape[1], single=True)
    return Forward(x, y, logits, cross_entropy(logits, y), again)


def replaying(device: torch.device) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return a context in which torch's global generators give what they give next, and after which they go on."""
    cuda = device.type == "cuda"
    states = torch.get_rng_state(), torch.cuda.get_rng_state(device) if cuda else None

    @contextlib.contextmanager
    def again() -> Iterator[None]:
        with torch.random.fork_rng(devices=[device] if cuda else []):
            torch.set_rng_state(states[0])
            if states[1] is not None:
                torch.cuda.set_rng_state(states[1], device)
            yield

    return again


def slopes(scores: Tensor, x: Tensor) -> Tensor:
    """Return grad_{x_n} sum_m h_m with its graph, flattened: scores h (N,), x (N, ...) -> (N, D)."""
    return gradient(scores, x, create_graph=True).flatten(1)


def penalised(run: Forward, scores: Tensor, weight: float, normalisation: Normalisation) -> dict[str, Tensor]:
    """Return the cross-entropy and weight times the squared norm of g_n = grad_{x_n} sum_m h_m, h the scores (N,).

    paper:     1/B sum_n H_n + weight 1/B sum_n ||g_n||^2
    paper_sum: sum_n H_n + weight sum_n ||g_n||^2
    code:      1/B sum_n H_n + weight 1/2 ||grad_X (1/B sum_n h_n)||^2 = ... + weight/(2 B^2) sum_n ||g_n||^2
    """
    whole = normalisation == "paper_sum"
    loss = run.losses.sum() if whole else run.losses.mean()
    if weight == 0:
        return {"cross_entropy": loss, "gradient_penalty": torch.zeros_like(loss)}
    squares = slopes(scores, run.x).square().sum(1)
    if whole:
        return {"cross_entropy": loss, "gradient_penalty": weight * squares.sum()}
    scale = 1.0 if normalisation == "paper" else 0.5 / len(squares)
    return {"cross_entropy": loss, "gradient_penalty": weight * scale * squares.mean()}


def chosen(x: Tensor, share: float, ctx: Context) -> Tensor:
    """Return the rows of a random share of the batch, in their order; at least one."""
    if share == 1:
        return torch.arange(len(x), device=x.device)
    lots = ctx.stream.child("examples").uniform(x.new_empty((len(x), 0), dtype=torch.float64), ())
    return lots.argsort(stable=True)[: max(1, round(share * len(x)))].sort().values


def inseparable(model: nn.Module) -> bool:
    """Say whether batch statistics tie the images of a batch together, so that a share of it is another batch."""
    return any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None)
        for layer in model.modules()
    )


def root(squares: Tensor) -> Tensor:
    """Return the square root, whose slope at 0 is taken as 0.

    >>> at = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> root(at).sum().backward()
    >>> at.grad
    tensor([0.0000, 0.2500])
    """
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, torch.ones_like(squares)).sqrt(), 0 * squares)
