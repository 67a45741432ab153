"""How large the perturbations are that an attack needs."""

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics.statistics import Interval, bootstrap_mean


def relative_perturbation(x: Tensor, adversarial: Tensor) -> Tensor:
    """Return the length of each image's perturbation as a share of the image's own length.

    ||x'_i - x_i||_2 / ||x_i||_2, all pixels and channels of an image together.

    x and x' (N, C, H, W), the same shape -> float64 (N,), >= 0, without unit; NaN for an image that is black all
    over, which has no length. Raises InputError for other shapes.
    Source: Jakubovitz & Giryes 2018, section 4.1 (one term of the mean). Deviations: none.

    >>> relative_perturbation(torch.tensor([[[[0.6, 0.8]]]]), torch.tensor([[[[0.6, 0.7]]]])).round(decimals=6)
    tensor([0.1000], dtype=torch.float64)
    """
    if x.shape != adversarial.shape or x.ndim != 4:
        raise InputError(
            f"images and their adversarial images must both be (N, C, H, W); got {tuple(x.shape)} "
            f"and {tuple(adversarial.shape)}"
        )
    clean, changed = x.detach().double(), adversarial.detach().to(x.device).double()
    length = torch.linalg.vector_norm(clean.flatten(1), dim=1)
    share = torch.linalg.vector_norm((changed - clean).flatten(1), dim=1) / length
    return torch.where(length > 0, share, torch.nan)


def rho_adv(x: Tensor, adversarial: Tensor, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean relative size of minimal adversarial perturbations with its bootstrap interval.

    rho_adv = (1/N) sum_i ||r_i||_2 / ||x_i||_2, r_i = x'_i - x_i; higher is better (more robust).

    x (N, C, H, W) clean, x' what a minimal attack made of them: attacks.DeepFool() on the whole test set in the
    paper, without stop_when_fooled, so that an image which is misclassified to begin with counts by its distance
    to the boundary of the predicted class. Three numbers >= 0, without unit; all NaN for no image. Raises
    InputError for other shapes and for images that are black all over: leave these out, and say how many.
    Images must be in [0, 1]: the share changes where images are normalised first.
    Source: Jakubovitz & Giryes 2018, section 4.1. Deviations: the interval is an addition.

    >>> x = torch.tensor([[[[0.6, 0.8]]], [[[1.0, 0.0]]]])
    >>> round(rho_adv(x, x + torch.tensor([0.0, 0.2])).value, 4)
    0.2
    """
    shares = relative_perturbation(x, adversarial)
    black = int(shares.isnan().sum())
    if black:
        raise InputError(
            f"{black} of {len(x)} images are black all over: leave them out, since rho_adv divides by them"
        )
    return bootstrap_mean(shares, confidence, seed)
