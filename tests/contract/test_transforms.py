"""Every registered transform, with every listed choice, against every promise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.protocols import Transform
from pellucid.rng import Stream

from .tiny import cases, option_cases
from .worlds import numbers, pictures, undisturbed

N, SEED = 5, 4


def images(channels: int = 3, dtype: torch.dtype = torch.float64, size: tuple[int, int] = (16, 12)) -> Tensor:
    """Return images that use the whole of [0, 1], both ends included."""
    x = numbers(N, channels, *size, seed=8)
    x[:, :, 0, 0], x[:, :, -1, -1] = 0, 1
    return x.to(dtype)


def in_range(transform: Any) -> bool:
    """Say whether [0, 1] is promised: always, but where a field `clip` says no."""
    return bool(getattr(transform, "clip", True))


def check_keeps_shape_dtype_and_range(transform: Any) -> None:
    for channels in (1, 3):
        for dtype in (torch.float32, torch.float64):
            x = images(channels, dtype)
            found = transform(x, rng=Stream(SEED))
            assert found.shape == x.shape
            assert found.dtype == dtype
            assert found.device == x.device
            assert bool(found.isfinite().all())
            assert not in_range(transform) or bool(((found >= 0) & (found <= 1)).all()), "images stay in [0, 1]"


def check_the_same_in_single_precision(transform: Any) -> None:
    x = pictures(N, torch.float32, channels=3)
    found, exact = transform(x, rng=Stream(SEED)), transform(x.double(), rng=Stream(SEED))
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def check_no_images(transform: Any) -> None:
    for channels in (1, 3):
        x = images(channels)[:0]
        assert transform(x).shape == x.shape
        assert transform(x, rng=Stream(SEED)).dtype == x.dtype


def check_one_pixel(transform: Any) -> None:
    """One pixel is transformed, or refused in a sentence that says why."""
    x = images(size=(1, 1))
    try:
        found = transform(x, rng=Stream(SEED))
    except InputError:
        with pytest.raises(InputError, match="1 x 1"):
            transform(x)
        return
    assert found.shape == x.shape
    assert bool(found.isfinite().all())


def check_without_a_stream_it_is_the_first(transform: Any) -> None:
    x = images()
    assert torch.equal(transform(x), transform(x, rng=Stream()))
    assert torch.equal(transform(x), transform(x, rng=Stream(0, torch.arange(N))))


def check_an_image_does_not_depend_on_its_batch(transform: Any) -> None:
    x, stream = images(), Stream(SEED, torch.tensor([7, 0, 3, 3000, 12]))
    together = transform(x, rng=stream)
    order = torch.tensor([3, 0, 4])
    fewer = transform(x[order], rng=stream.take(order))
    torch.testing.assert_close(fewer, together[order], rtol=0, atol=1e-12)
    for i in range(N):
        alone = transform(x[i : i + 1], rng=stream.take(torch.tensor([i])))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)


def check_what_is_random_differs_between_images_and_seeds(transform: Any) -> None:
    """Either nothing is random, or equal images come out different and another seed gives another result."""
    x = images()[:1].repeat(N, 1, 1, 1)
    found, other = transform(x, rng=Stream(SEED)), transform(x, rng=Stream(SEED + 1))
    if torch.equal(found, other):
        torch.testing.assert_close(found, found[:1].expand_as(found), rtol=0, atol=1e-12)
    else:
        assert all(not torch.equal(found[i], found[j]) for i in range(N) for j in range(i))


def check_it_changes_images_and_not_its_input(transform: Any) -> None:
    x = images()
    before = x.clone()
    found = transform(x, rng=Stream(SEED))
    assert torch.equal(x, before)
    assert not torch.equal(found, x), "a transform that leaves images as they are is none"
    found.zero_()
    assert torch.equal(x, before), "what is returned shares memory with what was given"


def check_leaves_everything_as_it_was(transform: Any) -> None:
    x = images()
    with undisturbed(nn.Identity(), x):
        transform(x, rng=Stream(SEED))
        transform(x)
        with torch.inference_mode():
            transform(x)


def check_the_memory_may_lie_in_any_way(transform: Any) -> None:
    x = images()
    found = transform(x, rng=Stream(SEED))
    channels_last = transform(x.contiguous(memory_format=torch.channels_last), rng=Stream(SEED))
    torch.testing.assert_close(channels_last, found, rtol=0, atol=1e-12)
    strided = transform(x.mT.contiguous().mT, rng=Stream(SEED))
    torch.testing.assert_close(strided, found, rtol=0, atol=1e-12)
    several = x[:1].expand(N, -1, -1, -1)
    torch.testing.assert_close(transform(several), transform(several.clone()), rtol=0, atol=1e-12)


def check_other_than_images_are_refused(transform: Any) -> None:
    x = images()
    in_bytes = (255 * x).byte()
    for wrong, word in ((255 * x, "255"), (x[0], "four axes"), (in_bytes, "floating point"), (x * torch.nan, "NaN")):
        with pytest.raises(InputError, match=word):
            transform(wrong)


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]


def _name(check: Callable[..., None]) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("check", CHECKS, ids=_name)
@pytest.mark.parametrize("transform", [*cases("transform"), *option_cases("transform")])
def test_transform(transform: Any, check: Callable[[Any], None]) -> None:
    assert isinstance(transform, Transform)
    check(transform)


class _Impostor:
    """A transform that is wrong in one way."""

    def __init__(self, wrong: Callable[[Tensor, Stream], Tensor]) -> None:
        self.wrong = wrong

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        return self.wrong(images, rng or Stream())


def equal_noise(x: Tensor, rng: Stream) -> Tensor:
    return Stream(rng.seed).uniform(x[:1]).expand_as(x)


IMPOSTORS: tuple[tuple[Callable[[Tensor, Stream], Tensor], Callable[[Any], None]], ...] = (
    (lambda x, rng: x, check_it_changes_images_and_not_its_input),
    (lambda x, rng: x.mul_(0.5), check_it_changes_images_and_not_its_input),
    (lambda x, rng: 2 * x, check_keeps_shape_dtype_and_range),
    (lambda x, rng: x.mean(1, keepdim=True), check_keeps_shape_dtype_and_range),
    (lambda x, rng: x.float(), check_keeps_shape_dtype_and_range),
    (lambda x, rng: (x - x.mean(0)).clamp(0, 1), check_an_image_does_not_depend_on_its_batch),
    (lambda x, rng: x.flip(0), check_an_image_does_not_depend_on_its_batch),
    (lambda x, rng: Stream(rng.seed).uniform(x), check_an_image_does_not_depend_on_its_batch),
    (equal_noise, check_what_is_random_differs_between_images_and_seeds),
    (lambda x, rng: torch.rand_like(x), check_leaves_everything_as_it_was),
    (lambda x, rng: 0 * x if rng.positions is None else x, check_without_a_stream_it_is_the_first),
    (lambda x, rng: x.as_strided(x.shape, x.contiguous().stride()), check_the_memory_may_lie_in_any_way),
    (lambda x, rng: x, check_other_than_images_are_refused),
    (lambda x, rng: x / x.amax(), check_no_images),
    (lambda x, rng: x / (x - x.mean((2, 3), keepdim=True)).amax((2, 3), keepdim=True), check_one_pixel),
    (lambda x, rng: (x + 1e6) - 1e6, check_the_same_in_single_precision),
)


@pytest.mark.parametrize(("wrong", "check"), IMPOSTORS)
def test_the_checks_can_fail(wrong: Callable[[Tensor, Stream], Tensor], check: Callable[[Any], None]) -> None:
    with pytest.raises((AssertionError, RuntimeError, IndexError, pytest.fail.Exception)):
        check(_Impostor(wrong))


def test_every_check_has_an_impostor() -> None:
    assert {check for _, check in IMPOSTORS} == set(CHECKS)
