"""Signs that an accuracy under attack is too good to be true: checks of the network, image by image."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pellucid.errors import InputError
from pellucid.guard import check_images, check_labels, frozen, recording
from pellucid.maths.losses import cross_entropy
from pellucid.maths.passes import gradient


class RobustnessWarning(UserWarning):
    """A sign that the robustness measured is not the robustness there is."""


MASKING: Mapping[str, str] = {
    "randomised": "two passes of one image gave different logits: attack the expectation (AutoAttack version='rand')",
    "probabilities": "the network gives probabilities, not logits: their gradients vanish where it is sure",
    "zero_gradient": "the loss has no gradient at the image: white-box attacks are blind there",
    "non_finite_gradient": "the gradient at the image is NaN or infinite: white-box attacks cannot use it",
    "black_box_beats_white_box": "an attack without gradients fooled what those with gradients did not",
    "optimises_in_forward": "the forward pass computes gradients of its own: an adaptive attack is needed",
}

# Not a sign of masking, but of another attack than the one asked for.
REPLACED: Mapping[str, str] = {
    "fewer_targets": "the network has fewer other classes than targets were asked for: all of them were targets",
    "dlr_fallback": "the network has too few classes for a difference of logits ratio: a simpler one was climbed",
}


def checks(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return what can be seen of a network before any attack, bool (N,) per image; False is as it should be.

    randomised: two forward passes differ by more than rounding; probabilities: all outputs are at least 0 and
    their sum is 1; zero_gradient, non_finite_gradient: of the cross entropy of y, in the image; optimises_in_forward:
    gradients are recorded inside a forward pass run without (the same for all images). `MASKING` says what they mean.

    x (N, C, H, W) in [0, 1], y (N,) true labels. Costs 3 forward passes and 1 backward pass. The network is left as it
    was found. Raises InputError for images outside [0, 1], labels out of range and logits that are not (N, K).
    Source: Croce & Hein's AutoAttack, flags_doc.md; Carlini et al. 2019, On evaluating adversarial robustness,
    section 3. Deviations: theirs judge a batch as one, these each image.

    >>> sure = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    >>> checks(sure, torch.rand(2, 1, 1, 3), torch.tensor([0, 1]))["probabilities"]
    tensor([True, True])
    """
    return look(model, x, y).flags


class Look(NamedTuple):
    """What one look at a network told: the logits (N, K), where no gradient can be used (N,), and the flags."""

    logits: Tensor
    blind: Tensor
    flags: dict[str, Tensor]


def look(model: nn.Module, x: Tensor, y: Tensor) -> Look:
    """Do what `checks` does, and keep the logits; blind are images whose gradient is not finite or does not exist."""
    x = check_images(x.detach())
    y = check_labels(y, len(x), single=True)
    with frozen(model), recording():
        with torch.no_grad(), _Watch() as watch:
            logits = model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
            raise InputError("the network must return logits (N, K), one row per image")
        check_labels(y, len(x), logits.shape[1])
        with torch.no_grad():
            again = model(x)
        leaf = x.clone().requires_grad_(True)
        loss = cross_entropy(model(leaf), y)
        slope = gradient(loss, leaf).flatten(1)  # zeros where the network cut it off
    finite = slope.isfinite().all(1)
    flags = {
        "randomised": differ(logits, again),
        "probabilities": are_probabilities(logits),
        "zero_gradient": (slope == 0).all(1),
        "non_finite_gradient": ~finite,
        "optimises_in_forward": torch.full_like(finite, watch.seen),
    }
    return Look(logits, ~finite if loss.requires_grad else torch.ones_like(finite), flags)


def differ(logits: Tensor, again: Tensor) -> Tensor:
    """Say for each row (N, K) whether two passes differ by more than the rounding of sums taken in another order."""
    scale = logits.abs().amax(1).clamp(min=torch.finfo(logits.dtype).tiny)
    return ~((logits - again).abs().amax(1) <= 64 * torch.finfo(logits.dtype).eps * scale)


def are_probabilities(logits: Tensor) -> Tensor:
    """Say for each row (N, K) whether it could be a distribution: nothing below 0, and a sum of 1."""
    tolerance = max(1e-5, 4 * torch.finfo(logits.dtype).eps)
    return (logits >= 0).all(1) & ((logits.double().sum(1) - 1).abs() <= tolerance)


class _Watch(TorchFunctionMode):
    """Notices gradients at work where the caller switched them off: an optimisation inside the forward pass."""

    seen = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen = self.seen or torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))
