"""How strongly a network's loss and log-probabilities depend on its input."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_labels, frozen
from pellucid.interpreters import Gradient


class GradientNorms(NamedTuple):
    """Norms of the loss gradient at the true label and at the next one, each (N,)."""

    true: Tensor
    next: Tensor


def gradient_norms(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 100) -> GradientNorms:
    """Return the norm of each image's loss gradient, at the true label and at the next one; lower is better.

    ||grad_x H(y, yhat)||_2 and ||grad_x H(y', yhat)||_2, y' = (y + 1) mod K, the directions of FGSM and of
    TGSM.

    x (N, C, H, W) in [0, 1], y (N,) -> two float64 (N,), >= 0, in units of 1/[0, 1]; exactly 0 where the
    gradient underflows (a distilled network), so logarithmic axes need a floor. Eval mode, temperature 1, per
    example. Raises InputError for images outside [0, 1] and labels out of range. Source: Ross & Doshi-Velez
    2018, Figure 4. Deviation: the authors' notebook differentiates the mean of 1,000 examples, so its norms
    are 1/1000 of these.

    >>> network = nn.Flatten()  # the logits are the pixels: grad H = yhat - y
    >>> norms = gradient_norms(network, torch.zeros(1, 1, 1, 2), torch.tensor([0]))
    >>> round(norms.true.item(), 4), round(norms.next.item(), 4)
    (0.7071, 0.7071)
    """
    x = check_images(x)
    y = check_labels(y, len(x))
    if y.ndim != 1:
        raise InputError(f"labels must be (N,); got shape {tuple(y.shape)}")
    norms = [torch.zeros(0, 2, dtype=torch.float64, device=x.device)]
    interpreter = Gradient(score="cross_entropy")
    for part, labels in zip(batches(x, batch_size), batches(y, batch_size)):
        with frozen(model), torch.no_grad():
            classes = model(part[:1]).shape[1]
        check_labels(labels, len(part), classes)
        maps = interpreter(model, part, torch.stack([labels, (labels + 1) % classes], 1))
        norms.append(maps.double().flatten(2).norm(dim=2))  # float64: squares of small gradients underflow
    true, following = torch.cat(norms).unbind(1)
    return GradientNorms(true, following)


def log_probabilities(model: nn.Module, x: Tensor, batch_size: int = 500) -> Tensor:
    """Return the logarithms of all predicted probabilities, whose spread shows how smooth predictions are.

    log yhat_k = f_k(x) - log sum_j exp f_j(x), at temperature 1 and in eval mode.

    x (N, C, H, W) in [0, 1] -> (N, K), <= 0, float32 at least. Neither high nor low is good; a distilled
    network reaches -800, others stay above about -50. Raises InputError for images outside [0, 1]. Source:
    Ross & Doshi-Velez 2018, Figure 4 (bottom row).

    >>> log_probabilities(nn.Flatten(), torch.zeros(1, 1, 1, 2)).exp()
    tensor([[0.5000, 0.5000]])
    """
    x = check_images(x)
    with frozen(model), torch.no_grad():
        logits = torch.cat([model(part) for part in batches(x, batch_size) or (x,)])
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return functional.log_softmax(wide, 1)


class Histogram(NamedTuple):
    """Counts (B,) between edges (B + 1,), and how many values lay below the first and above the last edge."""

    edges: Tensor
    counts: Tensor
    below: int
    above: int


def log_probability_histogram(
    log_probabilities: Tensor, *, bins: int = 50, low: float = -50.0, high: float = 0.0
) -> Histogram:
    """Return how log-probabilities are spread: all classes of all images, in bins of equal width.

    counts_b = |{(n, k) : e_b <= log yhat_{n,k} < e_{b+1}}|, the last bin including its upper edge.

    log_probabilities (N, K) or any shape, <= 0 -> int64 counts (B,). What lies outside is counted beside them, not
    dropped: a distilled network needs low=-800. Raises InputError for NaN, no bins, ends that are infinite, and
    low >= high.
    Source: Ross & Doshi-Velez 2018, Figure 4 (bottom row: -50 to 0, -800 to 0 for the distilled network).

    >>> found = log_probability_histogram(torch.tensor([[-0.5, -1.5], [-60.0, 0.0]]), bins=2, low=-2.0)
    >>> found.counts, found.below
    (tensor([1, 2]), 1)
    """
    if bins < 1 or not (low < high and math.isfinite(high - low)):
        raise InputError(f"a histogram needs at least one bin and finite low < high; got {bins}, {low} and {high}")
    values = log_probabilities.detach().flatten().double().cpu()
    if bool(values.isnan().any()):
        raise InputError("log-probabilities contain NaN")
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64, device="cpu")
    inside = values[(values >= low) & (values <= high)]
    place = (torch.searchsorted(edges, inside, right=True) - 1).clamp(0, bins - 1)
    counts = torch.bincount(place, minlength=bins)
    return Histogram(edges, counts, int((values < low).sum()), int((values > high).sum()))
