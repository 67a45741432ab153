"""How stable a saliency map is where the image changes a little and the prediction does not."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pellucid.attacks import is_learner
from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_labels
from pellucid.interpreters.heatmap import reduce_channels
from pellucid.metrics.maps import Stability, kendall_tau, stability
from pellucid.metrics.robustness import predict
from pellucid.protocols import Attack, Interpreter
from pellucid.rng import Stream

Reduce = Literal["none", "abs_sum"]


class NoiseStability(NamedTuple):
    """Per image and sample: tau float64 (N, S), kept bool (N, S); and the mean over images, each by its own mean."""

    tau: Tensor
    kept: Tensor
    stability: Stability


class AttackStability(NamedTuple):
    """Per image: tau float64 (N,), kept bool (N,), the attacked images (N, C, H, W); and the mean over those kept."""

    tau: Tensor
    kept: Tensor
    adversarial: Tensor
    stability: Stability


def stability_under_noise(
    model: nn.Module,
    interpreter: Interpreter,
    x: Tensor,
    target: Tensor,
    *,
    noise_level: float = 0.1,
    samples: int = 10,
    rng: Stream | None = None,
    reduce: Reduce = "none",
    batch_size: int = 100,
) -> NoiseStability:
    """Return the rank correlation between the maps of images and of the same images with noise; higher is better.

    tau_{n,s} = tau(I(x_n), I(clip(x_n + sigma_n e_s, 0, 1))), e_s standard normal, sigma_n = noise_level (max x_n -
    min x_n); kept_{n,s}: the noise did not change the predicted class.

    x (N, C, H, W) in [0, 1], target (N,) the classes whose maps are compared -> tau in [-1, 1], NaN where a map is
    constant. The summary takes each image's mean over its kept samples, then the mean over images; its `kept` counts
    images with one at least. reduce: see `stability_under_attack`. Noise depends on the image's position in `rng`, not
    on the batch; what an interpreter draws itself is the same for an image and its noisy versions. The network is
    left as it was found. Raises InputError for a negative noise level, no samples, and for images and labels that
    are none. Source: the noise is that of SmoothGrad (Smilkov et al. 2017), the measure that of Boopathy et al. 2020,
    Table 3. Deviation: noisy images are cut to [0, 1], as images are.

    >>> from pellucid.interpreters import Gradient
    >>> network = nn.Flatten()  # linear: its gradient is the same everywhere
    >>> x = torch.tensor([[[[0.2, 0.9, 0.1]]]])
    >>> stability_under_noise(network, Gradient(), x, torch.tensor([1]), samples=2).tau
    tensor([[1.0000, 1.0000]], dtype=torch.float64)
    """
    if not noise_level >= 0 or samples < 1:
        raise InputError(f"noise_level must be 0 or more and samples at least 1; got {noise_level} and {samples}")
    x, target, rng = *_checked(x, target, reduce), rng or Stream()
    tau = torch.full((len(x), samples), torch.nan, dtype=torch.float64, device=x.device)
    kept = torch.zeros(tau.shape, dtype=torch.bool, device=x.device)
    for rows in batches(torch.arange(len(x), device=x.device), batch_size):
        part, classes, stream = x[rows], target[rows], rng.take(rows)
        before, predicted = _maps(model, interpreter, part, classes, stream, reduce), predict(model, part, batch_size)
        low, high = part.flatten(1).aminmax(dim=1)
        sigma = (noise_level * (high - low)).view(-1, 1, 1, 1)
        for sample in range(samples):
            noisy = (part + sigma * stream.child("noise").normal(part, step=sample)).clamp(0, 1)
            kept[rows, sample] = predict(model, noisy, batch_size) == predicted
            tau[rows, sample] = kendall_tau(before, _maps(model, interpreter, noisy, classes, stream, reduce))
    return NoiseStability(tau, kept, stability(torch.where(kept, tau, torch.nan).nanmean(1), kept.any(1)))


def stability_under_attack(
    model: nn.Module,
    interpreter: Interpreter,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    *,
    rng: Stream | None = None,
    reduce: Reduce = "none",
    batch_size: int = 100,
) -> AttackStability:
    """Return the rank correlation between the true class's maps before and after an attack; higher is better.

    tau_n = tau(I(x_n, y_n), I(x'_n, y_n)), x' = attack(f, x, y); kept_n: argmax f(x'_n) = argmax f(x_n), whether it
    is y_n or not.

    x (N, C, H, W) in [0, 1], y (N,) -> tau in [-1, 1], NaN where a map is constant. The summary is over the kept
    images and says how many there are: for weak networks a mean may rest on one (`stability`). Any attack will do
    that looks at each image alone (one that learns from a set would depend on the batch, and is refused); AAI moves
    the map and leaves the label alone, others leave few images to keep. reduce "none": the raw signed maps, flattened,
    channels and all, as the protocol compares CAMs; "abs_sum": magnitudes summed over channels, as Boopathy et al. do
    for integrated gradients. Random numbers depend on the image's position in `rng`, not on the batch. The network is
    left as it was found. Raises InputError for images and labels that are none, and for attacks that learn.
    Source: Boopathy et al. 2020, section 5 and Table 3; authors' code. Deviations: none known.

    >>> from pellucid.attacks import FGSM
    >>> from pellucid.interpreters import Gradient
    >>> network = nn.Flatten()  # linear: its gradient is the same everywhere
    >>> x, y = torch.tensor([[[[0.2, 0.9, 0.1]]], [[[0.4, 0.5, 0.1]]]]), torch.tensor([1, 1])
    >>> result = stability_under_attack(network, Gradient(), x, y, FGSM(eps=0.1))
    >>> result.tau, result.kept, result.stability.kept
    (tensor([1.0000, 1.0000], dtype=torch.float64), tensor([ True, False]), 1)
    """
    x, y, rng = *_checked(x, y, reduce), rng or Stream()
    if is_learner(attack):
        raise InputError("the attack learns from all images at once: its images would depend on the batch")
    tau = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
    kept, adversarial = torch.zeros(len(x), dtype=torch.bool, device=x.device), x.clone()
    for rows in batches(torch.arange(len(x), device=x.device), batch_size):
        part, labels, stream = x[rows], y[rows], rng.take(rows)
        changed = attack(model, part, labels, rng=stream).detach()
        adversarial[rows] = changed
        kept[rows] = predict(model, changed, batch_size) == predict(model, part, batch_size)
        before = _maps(model, interpreter, part, labels, stream, reduce)
        tau[rows] = kendall_tau(before, _maps(model, interpreter, changed, labels, stream, reduce))
    return AttackStability(tau, kept, adversarial, stability(tau, kept))


def _checked(x: Tensor, y: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor]:
    if reduce not in get_args(Reduce):
        raise InputError(f"reduce must be one of {', '.join(get_args(Reduce))}; got {reduce!r}")
    x = check_images(x).detach()
    return x, check_labels(y, len(x), single=True)


def _maps(model: nn.Module, interpreter: Interpreter, x: Tensor, y: Tensor, stream: Stream, reduce: Reduce) -> Tensor:
    """Return flattened maps; what the interpreter draws is the same for every version of an image."""
    maps = interpreter(model, x, y, rng=stream.child("map")).detach()
    return (reduce_channels(maps, "abs_sum") if reduce == "abs_sum" else maps).flatten(1)
