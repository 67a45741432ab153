"""Fourier filters: low-pass, high-pass, and modes dropped at random."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import SpecError
from pellucid.guard import check_images
from pellucid.maths.fourier import conjugate, disc, disc_of_share, far_from_middle, filtered
from pellucid.rng import Stream
from pellucid.spec import Flag, NonNegative, Share, register, title


@dataclass(frozen=True, kw_only=True)
class _Radial:
    """A filter whose mask is the same for all images."""

    radius: NonNegative | None = None
    share: Share | None = None
    form: Literal["disc", "code"] = "disc"
    clip: Flag = False

    def check(self) -> None:
        """Refuse to guess which modes are meant."""
        if (self.radius is None) == (self.share is None):
            raise SpecError(f"{title(type(self))} needs one of radius (cycles per image) and share (of the modes kept)")
        if self.form == "code" and self.radius is None:
            raise SpecError(f"{title(type(self))} with form=code needs radius: its masks are no discs of some share")

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Return which modes of images of this size are kept, bool (H, W), laid out as by `torch.fft.fft2`."""
        raise NotImplementedError

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the filtered images."""
        images = check_images(images)
        height, width = images.shape[2:]
        found = filtered(images, self.mask((height, width)).to(images.device))
        return found.clamp(0, 1) if self.clip else found


@register("transform", "low_pass")
@dataclass(frozen=True, kw_only=True)
class LowPass(_Radial):
    """Keep the low spatial frequencies of every channel, which blurs and rings, and drop the others.

    x' = Re F^-1(M F(x)), M(f) = 1 where |f| <= radius

    f are the whole signed frequencies in cycles per image height and width, so that the kept modes are a disc around
    f = 0, its edge included; radius 0 leaves each channel's mean, sqrt(H^2 + W^2) / 2 the image. share instead of
    radius names the disc whose share of all modes is nearest to it (below half a mode: none, a black image).
    Images (N, C, H, W) float in [0, 1] -> the same shape. Nothing is clipped, unless clip=True: values may leave
    [0, 1], which networks take but attacks and metrics refuse; LowPass and HighPass of one radius add up to the image.
    form="code" keeps the entries of the unshifted spectrum farther than radius from entry (H / 2 - 1, W / 2 - 1), as
    the authors do. That set is a star with hollow sides, not a disc: at 224 pixels radius 144 keeps 1.7 % of the modes
    (up to |f| = 22 along the axes), 130 keeps 7.0 %, 120 13.5 %, 44 87.9 %. It is not symmetric, so that the real part
    halves a few modes.
    Raises SpecError unless one of radius and share is given, InputError for images outside [0, 1].
    Source: Zhang & Zhu 2019, appendix C (no radius printed; authors' code: 144); Jo & Bengio 2017.
    Deviations: form="code" at other sizes than 224 keeps the rule, rounded down where H or W is odd.
    """

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Return which modes of images of this size are kept, bool (H, W), laid out as by `torch.fft.fft2`."""
        if self.radius is None:
            assert self.share is not None
            return disc_of_share(size, self.share)
        return far_from_middle(size) > self.radius if self.form == "code" else disc(size, self.radius)


@register("transform", "high_pass")
@dataclass(frozen=True, kw_only=True)
class HighPass(_Radial):
    """Drop the low spatial frequencies of every channel, the mean among them, and keep the others.

    x' = Re F^-1(M F(x)), M(f) = 1 where |f| > radius

    f are the whole signed frequencies in cycles per image height and width: what a disc around f = 0, its edge
    included, leaves over. share instead of radius keeps that share of all modes, the highest, as nearly as a disc can
    (1: all of them, the image itself). Images (N, C, H, W) float in [0, 1] -> the same shape. Nothing is clipped,
    unless clip=True: about half of the values are negative, which networks take but attacks and metrics refuse;
    LowPass and HighPass of one radius add up to the image.
    form="code" keeps the entries of the unshifted spectrum nearer than radius to entry (H / 2 - 1, W / 2 - 1), as the
    authors do: at 224 pixels radius 144 keeps 98.3 % of the modes (|f| above about 13), 142 97.8 %, 148 99.1 %.
    Raises SpecError unless one of radius and share is given, InputError for images outside [0, 1].
    Source: Zhang & Zhu 2019, appendix C (no radius printed; authors' code: 144); Jo & Bengio 2017.
    Deviations: form="code" at other sizes than 224 keeps the rule, rounded down where H or W is odd.
    """

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Return which modes of images of this size are kept, bool (H, W), laid out as by `torch.fft.fft2`."""
        if self.radius is None:
            assert self.share is not None
            return ~disc_of_share(size, 1 - self.share)
        return far_from_middle(size) < self.radius if self.form == "code" else ~disc(size, self.radius)


@register("transform", "random_fourier")
@dataclass(frozen=True, kw_only=True)
class RandomFourier:
    """Drop every Fourier mode of an image with one probability, by a mask of its own.

    x' = Re F^-1(M F(x)), M(f) = 0 with probability drop, else 1

    A mode and its conjugate, which together are one real wave, are dropped together, in all channels alike: a wave is
    there or gone, and the image's mean (f = 0) is lost with probability drop as well. Images (N, C, H, W) float in
    [0, 1] -> the same shape. drop=0 gives the image, drop=1 black. Nothing is clipped, unless clip=True: values may
    leave [0, 1], which networks take but attacks and metrics refuse.
    form="code" draws a mask for each channel and each mode by itself, as the authors do; of the result they take the
    real part, which drops a wave with probability drop^2 and halves it with probability 2 drop (1 - drop).
    Raises InputError for images outside [0, 1].
    Source: Zhang & Zhu 2019, appendix C (no probability printed; authors' code: 0.1); Jo & Bengio 2017.
    Deviations: whether conjugate modes and channels share a mask is not printed.
    """

    drop: Share = 0.1
    form: Literal["symmetric", "code"] = "symmetric"
    clip: Flag = False

    def mask(self, images: Tensor, rng: Stream) -> Tensor:
        """Return which modes are kept, bool (N, 1, H, W) or (N, C, H, W), laid out as by `torch.fft.fft2`."""
        channels, height, width = images.shape[1:]
        shape = (1 if self.form == "symmetric" else channels, height, width)
        numbers = rng.child("modes").uniform(images.new_empty((len(images), 0), dtype=torch.float64), shape)
        if self.form == "symmetric":
            place = torch.arange(height * width, device=images.device).view(height, width)
            numbers = numbers.flatten(2)[:, :, torch.minimum(place, conjugate(place))]
        return numbers >= self.drop

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the filtered images."""
        images = check_images(images)
        found = filtered(images, self.mask(images, rng or Stream()))
        return found.clamp(0, 1) if self.clip else found
