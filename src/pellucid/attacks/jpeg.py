"""The JPEG attack."""

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Le
from torch import Tensor
from torch.nn import functional

from pellucid.attacks.objective import Loss, Size
from pellucid.attacks.unforeseen import Effect, Form, Unforeseen, check_grey_or_rgb, middle, sixteens
from pellucid.errors import SpecError
from pellucid.maths.balls import fill_l1, project, random_start, steepest
from pellucid.maths.jpeg import coefficients, decode, encode
from pellucid.protocols import TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, NonNegative, register

Ball = Literal["linf", "l2", "l1"]
EPS: dict[Ball, float] = {"linf": 0.25, "l2": 8.0, "l1": 256.0}  # Boopathy et al. 2020, Table 2
BOUND = 2.0  # of every coefficient, in the l2 and l1 balls

Budget = Annotated[NonNegative, Le(1_000_000)]  # Kang et al. go up to 131,072 in l1, at 224 x 224


@register("attack", "jpeg")
@dataclass(frozen=True, kw_only=True)
class JPEG(Unforeseen):
    """A perturbation of the JPEG coefficients of an image.

    x' = clip(decode(encode(x) + v / 2), 0, 1); encode: YCbCr, chroma averaged over 2x2 pixels, cosine transform of
    8x8 blocks, divided by the standard quantisation tables, not rounded; decode undoes it.
    ball="linf": v <- clip(v + step_size sign(g), -eps, eps), g = grad_v L;
    ball="l2": v <- clip(Proj_eps(v + step_size g / ||g||_2), -2, 2);
    ball="l1" (Frank-Wolfe): v <- v + (s - v) / (t + 1) at step t = 0, 1, ..., s the point with ||s||_1 <= eps and
    |s_i| <= 2 where <g, s> is largest. v starts uniform in the ball (clipped to +-2), or at 0 without random_start.

    x (N, 1 or 3, H, W) in [0, 1], y (N,) true labels -> x' of the same shape. eps bounds v per image, in quantisation
    steps of 8-bit images (v / 2 is added: eps 1 is what rounding may do); None means 0.25, 8, 256 for linf, l2, l1.
    step_size, in units of v, None means eps / sqrt(steps), Boopathy et al.'s choice; Frank-Wolfe has none. x' is not in
    a ball around x in pixels. Sides that are no multiples of 16 are padded in the middle by repeating the border, and
    cut off again; a grey image is three equal channels, whose results are averaged. At eps = 0 a grey image is itself
    up to rounding, a colour image has its chroma averaged over 2x2 pixels.
    form="code" does what the released code does: the first gradient is taken at eps v (a division is missing), and
    the magnitude of s_i is at most 2 - v_i sign(g_i). Raises InputError for images outside [0, 1], for other than 1 or
    3 channels, and for labels out of range; SpecError for a step size with Frank-Wolfe.
    Source: Kang et al. 2019 and their released code; Boopathy et al. 2020, Table 2 (eps, steps, step size).
    Deviations: MNIST is padded by repeating its border, not by black (the border is black nearly always).
    """

    ball: Ball = "linf"
    eps: Budget | None = None
    step_size: Size | None = None
    steps: Count = 200
    random_start: Flag = True
    loss: Loss = "cross_entropy"
    target: TargetRule | None = None
    form: Form = "paper"

    def check(self) -> None:
        """Fill in the ball's own eps; refuse a step size where there is no use for one."""
        if self.eps is None:
            object.__setattr__(self, "eps", EPS[self.ball])
        if self.ball == "l1" and self.step_size is not None:
            raise SpecError("attack jpeg takes no step_size with ball l1: Frank-Wolfe steps are 1/1, 1/2, 1/3, ...")

    def effect(self, x: Tensor, rng: Stream) -> Effect:
        """Return the perturbation of the coefficients of images x."""
        check_grey_or_rgb(x, "jpeg")
        channels, *size = x.shape[1:]
        eps = self.eps or 0.0
        step, number, released = self._step(eps), itertools.count(), self.form == "code"
        room = [sixteens(n) for n in size]
        inner = [middle(whole, n) for whole, n in zip(room, size)]
        sides = [(part.start, whole - part.stop) for part, whole in zip(inner, room)]
        padded = functional.pad(x, (*sides[1], *sides[0]), mode="replicate")
        clean = encode(padded)

        def render(v: Tensor, rows: Tensor) -> Tensor:
            image = decode(clean[rows] + v / 2, *room)[:, :, inner[0], inner[1]].clamp(0, 1)
            return image if channels == 3 else image.mean(1, keepdim=True)

        def move(v: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            steps_done = next(number)
            if released and steps_done == 0 and eps > 0:
                v = v / eps
            if self.ball == "linf":
                return (v + step * torch.sign(slope)).clamp(-eps, eps)
            if self.ball == "l2":
                return project("l2", v + step * steepest("l2", slope), eps).clamp(-BOUND, BOUND)
            most = BOUND - v * torch.sign(slope) if released else torch.full_like(v, BOUND)
            vertex = fill_l1(slope, eps, most)
            return v + (vertex - v) / (steps_done + 1)

        start = x.new_zeros((len(x), coefficients(*room)))
        if self.random_start:
            start = start_in(self.ball, start, eps, rng.child("start"))
        return Effect(eps * start if released else start, render, move)


def start_in(ball: Ball, like: Tensor, eps: float, rng: Stream) -> Tensor:
    """Return points drawn uniformly from the ball of radius eps, coefficients clipped to +-2 in l2 and l1."""
    if ball == "linf":
        return random_start("linf", like, eps, rng)
    if ball == "l2":
        return random_start("l2", like, eps, rng).clamp(-BOUND, BOUND)
    # Barthe, Guedon, Mendelson & Naor 2005, theorem 1: signed exponentials over the sum of one more of them.
    sizes = -torch.log1p(-rng.child("size").uniform(like))
    signs = 1 - 2 * rng.child("sign").words(like, tuple(like.shape[1:])).remainder(2).to(like.dtype)
    more = -torch.log1p(-rng.child("length").uniform(like, (1,)))
    return (eps * signs * sizes / (sizes.sum(1, keepdim=True) + more)).clamp(-BOUND, BOUND)
