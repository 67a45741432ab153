"""Random numbers that depend on nothing but (seed, sample, step, element).

A counter-based generator: every value is an integer hash of its own coordinates, so that it is the same on
every device and does not depend on the batch, the order, which samples are still in it, sharding or resume.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_WORD = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLY = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFT = (30, 27, 31)
_SIGNIFICAND = {torch.float64: 53, torch.float16: 11, torch.bfloat16: 8}  # bits held exactly; float32: 24


def _signed(word: int) -> int:
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word


def _below(bits: int) -> int:
    """Return the mask that makes a shift of a signed word by so many bits a logical one."""
    return (1 << (64 - bits)) - 1


def _shift_right_(x: Tensor, bits: int) -> Tensor:
    return x.bitwise_right_shift_(bits).bitwise_and_(_below(bits))


def mix(x: Tensor) -> Tensor:
    """Scramble int64 words (the finaliser of SplitMix64; Steele, Lea & Flood 2014)."""
    return _mix_(x.clone())


def _mix_(x: Tensor) -> Tensor:
    """Scramble int64 words in place: new memory for every operation would take longer than the arithmetic."""
    shifted = torch.empty_like(x)
    for bits, factor in zip(_SHIFT, (*_MULTIPLY, 1)):
        torch.bitwise_right_shift(x, bits, out=shifted)
        x ^= shifted.bitwise_and_(_below(bits))
        if factor != 1:
            x *= _signed(factor)
    return x


def mix_number(word: int) -> int:
    """Scramble one integer as `mix` does; returns a number in [0, 2^63)."""
    word = (word + _GOLDEN) % _WORD
    for bits, factor in zip(_SHIFT, (*_MULTIPLY, 1)):
        word = (word ^ (word >> bits)) * factor % _WORD
    return word % (_WORD // 2)


def derive(seed: int, *path: int | str) -> int:
    """Return a seed of its own for a named part of the work, such as `derive(seed, "train", step)`."""
    for part in path:
        number = int.from_bytes(part.encode(), "little") % (_WORD - 59) if isinstance(part, str) else part
        seed = mix_number(seed ^ mix_number(number + 0x5851F42D4C957F2D))
    return seed


@dataclass(frozen=True)
class Stream:
    """Random numbers for N samples, each addressed by its position in the data set.

    `Stream(seed)` stands for positions 0..N-1 of whatever batch it is used on.
    """

    seed: int = 0
    positions: Tensor | None = None

    def take(self, rows: Tensor) -> "Stream":
        """Return the stream of some rows only; their numbers do not change."""
        if self.positions is None:
            return Stream(self.seed, rows)
        return Stream(self.seed, self.positions.to(rows.device)[rows])

    def pairs(self, rows: Tensor, steps: Tensor) -> "Stream":
        """Return the stream of pairs of a sample's row and a step, both (B,): its numbers depend on nothing else.

        For steps below 2^24. Positions from 2^39 on, as those of pairs themselves, are scrambled first.
        """
        own = rows if self.positions is None else self.positions.to(rows.device, torch.int64)[rows]
        small = (own >= 0) & (own < 1 << 39)
        own = torch.where(small, own * (1 << 24), mix(own.to(torch.int64)))
        return Stream(derive(self.seed, "pairs"), own + steps)

    def child(self, *path: int | str) -> "Stream":
        """Return an independent stream for a named purpose."""
        return Stream(derive(self.seed, *path), self.positions)

    def words(self, like: Tensor, shape: tuple[int, ...], step: int = 0) -> Tensor:
        """Return int64 hash words (N, *shape), N and device taken from `like`."""
        n, device = len(like), like.device
        positions = torch.arange(n, device=device) if self.positions is None else self.positions
        positions = positions.to(device, torch.int64)  # narrower integers would overflow to other words
        if len(positions) != n:
            raise ValueError(f"a stream of {len(positions)} samples was used on a batch of {n}")
        key = mix(positions * _signed(_GOLDEN) + _signed(mix_number(self.seed)))
        key = mix(key ^ _signed(mix_number(step + 1)))
        element = torch.arange(math.prod(shape), device=device, dtype=torch.int64) * _signed(_GOLDEN)
        return _mix_(key[:, None] + element[None, :]).view(n, *shape)

    def uniform(self, like: Tensor, shape: tuple[int, ...] | None = None, step: int = 0) -> Tensor:
        """Return numbers in [0, 1), shape (N, *shape) or that of `like`, in its dtype and on its device."""
        words = self.words(like, tuple(like.shape[1:]) if shape is None else shape, step)
        dtype = like.dtype if like.is_floating_point() else torch.float32
        bits = _SIGNIFICAND.get(dtype, 24)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return _shift_right_(words, 64 - bits).to(wide).mul_(2.0**-bits).to(dtype)

    def normal(self, like: Tensor, shape: tuple[int, ...] | None = None, step: int = 0) -> Tensor:
        """Return standard normal numbers (Box & Muller 1958), shape (N, *shape) or that of `like`."""
        shape = tuple(like.shape[1:]) if shape is None else shape
        wide = like.new_empty((len(like), 0), dtype=torch.float64)
        first = self.child("radius").uniform(wide, shape, step)
        second = self.child("angle").uniform(wide, shape, step)
        dtype = like.dtype if like.is_floating_point() else torch.float32
        radius, angle = first.neg_().log1p_().mul_(-2).sqrt_(), second.mul_(2 * math.pi)
        return radius.mul_(angle.cos_()).to(dtype)

    def integers(self, like: Tensor, high: int, step: int = 0) -> Tensor:
        """Return one integer in [0, high) per sample, int64 (N,)."""
        return _shift_right_(self.words(like, (), step), 1) % high


def permutation(n: int, seed: int) -> Tensor:
    """Return a permutation of 0..n-1 that depends on `seed` alone, int64 on CPU.

    >>> permutation(5, seed=0).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    like = torch.empty(n, device="cpu")
    return torch.argsort(Stream(seed).words(like, ()), stable=True)


@contextlib.contextmanager
def global_seed(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block only, for dropout and weight initialisation."""
    device = torch.device(device)
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
