"""The Gabor noise attack."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attacks.objective import Loss, Size
from pellucid.attacks.unforeseen import Effect, Form, Unforeseen
from pellucid.protocols import TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, register

_WHITE = 255.0
_SIDE = 23  # of a kernel
_SPARSITY = 14  # one variable in 14 pixels
_ORIENTATIONS = 10  # at most, per kernel
_FLOOR = 1e-3  # of the contrast that the noise is divided by


@register("attack", "gabor")
@dataclass(frozen=True, kw_only=True)
class Gabor(Unforeseen):
    """Gabor noise: spikes at random places, convolved with a random kernel per image; the spikes are optimised.

    x' = clip(x + (eps/255) n, 0, 1), the same noise n in all channels. With c = v * k (convolution, zeros outside),
    d = c - mean(c): n = (d / (0.001 + |d| / max |d|)), shifted and scaled to [0, 1]; the divisors are held constant
    in the gradient. k is the sum over s orientations theta + pi i / s of
    exp(-(a^2 + b^2) / (2 (sigma + 0.001)^2)) cos(2 pi lambda a') on 23x23 points of [-1/2, 1/2]^2, a' along the
    orientation; s in 1..10, sigma in [0.1, 0.4], lambda in [3, 5.75], theta in [0, pi], uniform per image.
    v is nonzero at H W / 14 places per image, uniform in [-1, 1] at the start; v <- clip(v + step_size
    sign(grad_v L), -1, 1) at these places.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape. eps is in units of 255 (Kang et al.'s pixels),
    step_size in units of v; None means eps / sqrt(steps), Boopathy et al.'s choice, which sends every spike to -1 or 1
    at each step. Kernels, places and spikes are always random. At eps = 0 the image is itself.
    form="code" keeps v = 0 at the places of the first spikes and optimises all others, as the released code does
    (its mask is the complement). Raises InputError for images outside [0, 1] and labels out of range.
    Source: Kang et al. 2019 and their released code; Lagae et al. 2009; Boopathy et al. 2020, Table 2 (eps, steps,
    step size). Deviations: every image has H W / 14 spikes; the released code shares them out over the batch.
    """

    eps: Size = 400.0
    step_size: Size | None = None
    steps: Count = 200
    loss: Loss = "cross_entropy"
    target: TargetRule | None = None
    form: Form = "paper"

    monotone = False  # the normalisation is left out of the gradient

    def effect(self, x: Tensor, rng: Stream) -> Effect:
        """Return the noise over images x."""
        eps, step, size = self.eps / _WHITE, self._step(self.eps), (x.shape[2], x.shape[3])
        drawn = places(x, rng.child("places"))
        free = drawn if self.form == "paper" else 1 - drawn
        convolve = Convolution(random_kernels(x, rng.child("kernel")), size)

        def render(v: Tensor, rows: Tensor) -> Tensor:
            return (x[rows] + eps * even_contrast(convolve(v, rows))).clamp(0, 1)

        def move(v: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            return (v + step * torch.sign(slope)).clamp(-1, 1) * free[rows]

        spikes = 2 * rng.child("spikes").uniform(x, (1, *size)) - 1
        return Effect(spikes * drawn, render, move)


def places(x: Tensor, rng: Stream) -> Tensor:
    """Return ones at H W / 14 random places per image (at least one), zeros elsewhere: (N, 1, H, W)."""
    height, width = x.shape[2:]
    count = max(1, round(height * width / _SPARSITY))
    chosen = rng.words(x, (height * width,)).argsort(dim=1)[:, :count]
    return x.new_zeros((len(x), height * width)).scatter_(1, chosen, 1.0).view(-1, 1, height, width)


def random_kernels(x: Tensor, rng: Stream) -> Tensor:
    """Return one random kernel per image, (N, 23, 23)."""
    sides = rng.child("orientations").integers(x, _ORIENTATIONS) + 1
    width, waves, angle = (rng.child(name).uniform(x, ()) for name in ("width", "waves", "angle"))
    return gabor_kernels(sides, 0.1 + 0.3 * width, 3 + (_SIDE / 4 - 3) * waves, math.pi * angle)


def gabor_kernels(sides: Tensor, sigma: Tensor, waves: Tensor, angle: Tensor) -> Tensor:
    """Return Gabor kernels summed over orientations, all arguments (N,) -> (N, 23, 23); see Gabor."""
    number = torch.arange(_ORIENTATIONS, device=angle.device, dtype=angle.dtype)
    turned = angle[:, None] + math.pi * number / sides[:, None]
    axis = torch.linspace(-0.5, 0.5, _SIDE, device=angle.device, dtype=angle.dtype)
    down, across = axis[:, None], axis[None, :]
    turned = turned[..., None, None]
    along = across * turned.cos() + down * turned.sin()
    ripples = torch.cos(2 * math.pi * waves[:, None, None, None] * along)
    ripples = (ripples * (number < sides[:, None])[..., None, None]).sum(1)
    return ripples * torch.exp(-0.5 * (across**2 + down**2) / (sigma[:, None, None] + 1e-3) ** 2)


class Convolution:
    """Convolution of images (n, 1, H, W) with one odd, square kernel each, zeros outside, by Fourier transforms.

    A Gabor kernel is its own mirror image, so this is also the correlation that networks call convolution.
    """

    def __init__(self, kernels: Tensor, size: tuple[int, int]) -> None:
        self.size, self.reach = size, kernels.shape[-1] // 2
        # What wraps around falls on the margin of `reach` pixels, which is cut off.
        self.room = [quick_length(max(n + self.reach, kernels.shape[-1])) for n in size]
        self.dtype = torch.promote_types(kernels.dtype, torch.float32)  # there is no transform of half floats
        self.spectra = torch.fft.rfft2(kernels.to(self.dtype), s=self.room)[:, None]

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the images of these rows, each convolved with its kernel."""
        spectrum = torch.fft.rfft2(images.to(self.dtype), s=self.room) * self.spectra[rows]
        full: Tensor = torch.fft.irfft2(spectrum, s=self.room).to(images.dtype)
        height, width = self.size
        return full[..., self.reach : self.reach + height, self.reach : self.reach + width]


def quick_length(n: int) -> int:
    """Return the next length from n whose only prime factors are 2, 3 and 5, quick to transform."""
    rest = n
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return n if rest == 1 else quick_length(n + 1)


def even_contrast(noise: Tensor) -> Tensor:
    """Return noise (N, 1, H, W) with nearly the same contrast everywhere, in [0, 1]; constant noise becomes 0.

    The mean, the local contrast and the ends of the range are constants in the gradient.
    """
    away = noise - noise.mean((1, 2, 3), keepdim=True).detach()
    contrast = away.detach().abs()
    most = contrast.amax((1, 2, 3), keepdim=True)
    contrast = contrast / torch.where(most > 0, most, torch.ones_like(most))
    evened = away * ((1 + _FLOOR) / (_FLOOR + contrast))
    low, high = (end(evened.detach(), (1, 2, 3), keepdim=True) for end in (torch.amin, torch.amax))
    return (evened - low) / torch.where(high > low, high - low, torch.ones_like(high))
