"""Elastic deformation: a smooth flow of bounded size, found by sign steps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks.objective import Size, attacking, label_objective, plain
from pellucid.errors import InputError, SpecError
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate, Step, ascend
from pellucid.maths.flow import resample
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, Positive, register


def gaussian_kernel(size: int, std: float, like: Tensor) -> Tensor:
    """Return exp(-(i - centre)^2 / (2 std^2)) for i = 0..size-1, summing to 1: (size,)."""
    offsets = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    weights = torch.exp(-0.5 * (offsets / std).square())
    return weights / weights.sum()


def smooth(field: Tensor, kernel: Tensor) -> Tensor:
    """Blur (N, C, H, W) along both axes with a symmetric kernel of odd length; mirrored beyond the border.

    Raises InputError where the image is too small to be mirrored.
    """
    reach, (height, width) = len(kernel) // 2, field.shape[2:]
    if reach >= min(height, width):
        raise InputError(f"a kernel of {len(kernel)} pixels is too wide for images of {height}x{width}")
    padded = functional.pad(field, (reach,) * 4, mode="reflect").flatten(0, 1)[:, None]
    blurred = functional.conv2d(functional.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return blurred.view(field.shape)


@register("attack", "elastic")
@dataclass(frozen=True, kw_only=True)
class Elastic:
    """Pixels move by a blurred flow field of at most eps pixels, which climbs the loss by sign steps.

    x'(p) = x(p + (G * flow)(p)), bilinear, black beyond the border;
    flow <- clip(flow + step_size sign(d/dflow H(y, yhat(x'))), -eps, eps), G a Gaussian; with a target the loss of
    the target is lowered.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in [0, 1]. eps, step_size and the kernel are
    in pixels: eps bounds either component of the flow, before and hence after blurring; the colours are bounded by
    the image only. step_size None means eps / sqrt(steps). kernel_std None means 3 pixels on a side of 224, in
    proportion on the shorter side of others; kernel_size None reaches four of them, 2 ceil(4 kernel_std) + 1, as the
    authors' 25 at 224 and 5 at 32, or as far as the image can be mirrored. random_start draws the first flow
    uniformly. stop_when_fooled lets images leave once misclassified (or classified as the target).
    Raises InputError for images outside [0, 1], labels out of range and images smaller than half the kernel.
    Source: Kang et al. 2019, section 3, and the authors' code; Boopathy et al. 2020, Table 2 (its other attacks).
    Deviations: a pixel is a pixel; the authors convert by 2 / side, which makes theirs (side - 1) / side of one.
    """

    eps: Size = 1.0
    step_size: Size | None = None
    steps: Count = 200
    random_start: Flag = True
    kernel_size: Count | None = None
    kernel_std: Positive | None = None
    target: TargetRule | None = None
    mode: Mode = "eval"

    def check(self) -> None:
        """Refuse kernels without a middle."""
        if self.kernel_size is not None and self.kernel_size % 2 == 0:
            raise SpecError(f"the kernel of attack elastic must have an odd size, not {self.kernel_size}")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Tensor:
        """Return the adversarial images."""
        with attacking(model, x, y, target, self.target, rng, self.mode) as setup:
            return self._climb(label_objective(model, setup), setup.x, setup.rng, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x deformed by the flow that maximises any per-example objective."""
        return self._climb(plain(objective), check_images(x.detach()), rng or Stream(), leave=False)

    def kernel(self, like: Tensor) -> Tensor:
        """Return the Gaussian (size,) for images of the size of `like`."""
        side = max(1, min(like.shape[2:]))
        std = self.kernel_std or 3 * side / 224
        size = self.kernel_size or 2 * min(math.ceil(4 * std), side - 1) + 1
        return gaussian_kernel(size, std, like)

    def _climb(self, evaluate: Evaluate, x: Tensor, rng: Stream, leave: bool) -> Tensor:
        start = x.new_zeros((len(x), 2, *x.shape[2:]), dtype=torch.promote_types(x.dtype, torch.float32))
        kernel = self.kernel(start)
        step = self.eps / math.sqrt(self.steps) if self.step_size is None else self.step_size

        def deformed(flow: Tensor, rows: Tensor) -> Tensor:
            return resample(x[rows], smooth(flow, kernel), "zeros").clamp(0, 1)  # against rounding only

        def climbed(flow: Tensor, rows: Tensor) -> Step:
            return evaluate(deformed(flow, rows), rows)

        def move(flow: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            return (flow + step * slope.sign()).clamp(-self.eps, self.eps)

        if self.random_start:
            start = self.eps * (2 * rng.uniform(start) - 1)
        flow = ascend(climbed, start, move, self.steps, leave=leave).x
        with torch.no_grad():
            return deformed(flow, torch.arange(len(x), device=x.device))
