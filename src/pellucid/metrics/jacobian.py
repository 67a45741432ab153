"""How strongly all outputs of a network depend on its input."""

from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.guard import batches, check_images, check_logits, frozen, recording
from pellucid.maths.jacobian import squared_frobenius
from pellucid.rng import Stream


def jacobian_frobenius_norm(
    model: nn.Module,
    x: Tensor,
    *,
    projections: int | None = None,
    of: Literal["logits", "probabilities"] = "logits",
    rng: Stream | None = None,
    batch_size: int = 100,
) -> Tensor:
    """Return the Frobenius norm of the network's Jacobian at each image; lower means that small changes matter less.

    ||J(x)||_F = sqrt(sum_{d,k} (d z_k / d x_d)^2), z the logits or the probabilities; exactly, by K backward passes, or
    estimated from 1 to K random projections (see `maths.jacobian`).

    x (N, C, H, W) in [0, 1] -> (N,) >= 0, in units of 1/[0, 1]. Eval mode; the network is left as it was. Raises
    InputError for images outside [0, 1] and projections outside 1..K. Source: Jakubovitz & Giryes 2018, equation 3 and
    Table 1 (clean and DeepFool images). Deviation: the printed 0.14 is far below the logit Jacobian of such a
    network (order 10); it may be a root mean square over entries (norm / sqrt(K D)) or of probabilities, so only
    ratios can be compared.

    >>> network = nn.Flatten()  # the logits are the pixels: J is the identity
    >>> jacobian_frobenius_norm(network, torch.zeros(1, 1, 1, 4))
    tensor([2.])
    """
    x, rng = check_images(x), rng or Stream()
    norms = [torch.zeros(0, dtype=x.dtype, device=x.device)]
    for rows in batches(torch.arange(len(x), device=x.device), batch_size):
        with frozen(model), recording():
            leaf = x[rows].detach().requires_grad_(True)
            logits = check_logits(model(leaf), leaf)
            outputs = logits if of == "logits" else logits.softmax(1)
            squared = squared_frobenius(outputs, leaf, projections=projections, rng=rng.take(rows))
        norms.append(squared.detach().sqrt())
    return torch.cat(norms)
