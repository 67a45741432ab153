"""How strongly all outputs of a network depend on its input."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_logits, frozen, recording
from pellucid.maths.jacobian import squared_frobenius
from pellucid.rng import Stream

Outputs = Literal["logits", "probabilities"]


def jacobian_frobenius_norm(
    model: nn.Module,
    x: Tensor,
    *,
    projections: int | None = None,
    of: Outputs = "logits",
    rng: Stream | None = None,
    batch_size: int = 100,
) -> Tensor:
    """Return the Frobenius norm of the network's Jacobian at each image; lower means that small changes matter less.

    ||J(x)||_F = sqrt(sum_{d,k} (d z_k / d x_d)^2), z the logits or the probabilities; exactly, by K backward passes, or
    estimated from 1 to K random projections (see `maths.jacobian`): the square of the estimate is right on average, the
    estimate itself a little low (the root of a mean is at least the mean of roots).

    x (N, C, H, W) in [0, 1] -> float64 (N,) >= 0, in units of 1/[0, 1]. Eval mode; the network is left as it was.
    Raises InputError for images outside [0, 1], projections outside 1..K and other outputs, GradientError where no
    gradient reaches the image. Source: Jakubovitz & Giryes 2018, equation 3 and Table 1 (clean and DeepFool images).
    Deviation: the printed 0.14 is far below the logit Jacobian of such a network (order 10); it may be a root mean
    square over entries (norm / sqrt(K D)) or of probabilities, so only ratios can be compared.

    >>> network = nn.Flatten()  # the logits are the pixels: J is the identity
    >>> jacobian_frobenius_norm(network, torch.zeros(1, 1, 1, 4))
    tensor([2.], dtype=torch.float64)
    """
    if of not in get_args(Outputs):
        raise InputError(f"the Jacobian is of {' or '.join(get_args(Outputs))}; got {of!r}")
    x, rng = check_images(x), rng or Stream()
    norms = [torch.zeros(0, dtype=torch.float64, device=x.device)]
    for rows in batches(torch.arange(len(x), device=x.device), batch_size):
        with frozen(model), recording():
            leaf = x[rows].detach().requires_grad_(True)
            logits = check_logits(model(leaf), leaf)
            wide = torch.promote_types(logits.dtype, torch.float32)
            outputs = logits if of == "logits" else logits.softmax(1, dtype=wide)
            squared = squared_frobenius(  # float64: squares of small gradients underflow, those of half overflow
                outputs, leaf, projections=projections, rng=rng.take(rows), dtype=torch.float64
            )
        norms.append(squared.detach().sqrt())
    return torch.cat(norms)
