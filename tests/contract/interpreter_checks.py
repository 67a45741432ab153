"""What every interpreter promises.

A check takes a tiny interpreter and the world; all `check_*` are run on each.
"""

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.errors import InputError
from pellucid.interpreters.heatmap import resize
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream

from .tiny import REAL, resized, substituted
from .worlds import Trained, World, lively, pictures, refill, rough, undisturbed

N, ON_OBJECT = 4, 1.5
TARGET = torch.tensor([0, 2, 1, 1])
SEVERAL = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])


class Headless(Classifier):
    """A network that declares no linear head on pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 48, 3)

    def features(self, x: Tensor) -> Tensor:
        return functional.softplus(self.first(x))

    def classify(self, f: Tensor) -> Tensor:
        return self.last(f.flatten(1))


def differentiable(method: Any) -> bool:
    inner = getattr(method, "inner", method)
    return bool(getattr(inner, "differentiable", True))


def run(method: Any, model: nn.Module, x: Tensor, target: Tensor, **more: Any) -> Tensor:
    return method(model, x, target, rng=Stream(4), **more)


def check_shapes(method: Any, world: World) -> None:
    for dtype in (torch.float32, torch.float64):
        x, model = pictures(N, dtype, channels=2), lively(method, 3, dtype, channels=2)
        single, several = run(method, model, x, TARGET), run(method, model, x, SEVERAL)
        if single.ndim == 4:
            assert single.shape == x.shape, "a map with channels has the shape of the image"
        else:
            assert single.ndim == 3, "a map is (N, h, w) or (N, C, H, W)"
            assert len(single) == N
            assert single.shape[1] / single.shape[2] == x.shape[2] / x.shape[3], "height and width were exchanged"
        assert several.shape == (N, 2, *single.shape[1:]), "targets (N, M) give maps (N, M, ...)"
        assert single.dtype == dtype
        assert bool(single.isfinite().all())
        for column in (0, 1):
            alone = run(method, model, x, SEVERAL[:, column])
            assert torch.allclose(several[:, column], alone, rtol=1e-4, atol=1e-5), (
                f"column {column} of (N, M) is another map"
            )
        assert len(run(method, model, x[:0], TARGET[:0])) == 0
        assert run(method, model, x[:0], SEVERAL[:0]).shape[:2] == (0, 2)
        assert len(run(method, model, x[:1], TARGET[:1])) == 1


def check_detached_unless_asked(method: Any, world: World) -> None:
    model, x = lively(method), pictures(N).requires_grad_(True)
    assert not run(method, model, x, TARGET).requires_grad, "maps are detached unless create_graph is set"
    if not differentiable(method):
        with pytest.raises(InputError, match="no derivative"):
            run(method, model, x, TARGET, create_graph=True)
        return
    assert run(method, model, x, TARGET, create_graph=True).requires_grad, "create_graph gives maps with a graph"
    with torch.no_grad():
        plain = run(method, model, x, TARGET)
    with torch.inference_mode():
        inner = run(method, model, x.detach().clone(), TARGET.clone())
    expected = run(method, model, x, TARGET)
    assert torch.equal(plain, expected), "under no_grad the map differs"
    assert torch.equal(inner, expected), "under inference_mode the map differs"
    assert torch.allclose(run(method, model, x, TARGET, create_graph=True).detach(), expected, atol=1e-10)


def check_derivatives_are_right(method: Any, world: World) -> None:
    if not differentiable(method):
        return
    model, x = lively(method), pictures(2).requires_grad_(True)

    def maps(images: Tensor) -> Tensor:
        return run(method, model, images, TARGET[:2], create_graph=True)

    assert torch.autograd.gradcheck(maps, (x,), fast_mode=True, atol=1e-6)
    assert torch.autograd.gradgradcheck(maps, (x,), fast_mode=True, atol=1e-5)


def check_gradients_reach_the_parameters(method: Any, world: World) -> None:
    if not differentiable(method):
        return
    model, x = lively(method), pictures(N)
    run(method, model, x, TARGET, create_graph=True).square().sum().backward()
    missing = [name for name, p in model.named_parameters() if name.endswith("weight") and not _alive(p.grad)]
    assert not missing, f"no gradient of the map reaches {', '.join(missing)}"


def _alive(grad: Tensor | None) -> bool:
    return grad is not None and bool(grad.isfinite().all()) and bool((grad != 0).any())


def check_together_as_alone(method: Any, world: World) -> None:
    model, x = lively(method), pictures(N)
    together = run(method, model, x, TARGET)
    for i in range(N):
        stream = Stream(4, torch.tensor([i]))
        alone = method(model, x[i : i + 1], TARGET[i : i + 1], rng=stream)
        assert torch.allclose(alone[0], together[i], rtol=1e-7, atol=1e-10), f"image {i} has another map alone"
    assert torch.equal(together, run(method, model, x, TARGET)), "the same stream gave another map"


def check_leaves_the_model_as_it_was(method: Any, world: World) -> None:
    model, x = rough(), pictures(N, torch.float32)
    with undisturbed(model, x, TARGET):
        run(method, model, x, TARGET)
    leaf = x.clone().requires_grad_(True)
    with undisturbed(model, leaf, TARGET):
        run(method, model, leaf, TARGET)


def check_leaves_the_model_as_it_was_after_an_exception(method: Any, world: World) -> None:
    class Fails(type(rough())):  # type: ignore[misc]
        def features(self, x: Tensor) -> Tensor:
            super().features(x)
            raise RuntimeError("the forward pass broke")

    model = rough()
    model.__class__ = Fails
    x = pictures(N, torch.float32)
    with undisturbed(model, x, TARGET), pytest.raises(RuntimeError, match="the forward pass broke"):
        run(method, model, x, TARGET)


def check_eval_mode_is_used(method: Any, world: World) -> None:
    model, x = rough(), pictures(N, torch.float32)
    mixed = run(method, model, x, TARGET)
    assert torch.equal(mixed, run(method, model.eval(), x, TARGET)), "a model in train mode is explained in eval mode"


def check_constant_images_and_maps(method: Any, world: World) -> None:
    for value in (0.0, 0.5, 1.0):
        x = torch.full((N, 1, 8, 6), value)
        found = run(method, lively(method, 3, torch.float32), x, TARGET)
        assert bool(found.isfinite().all()), f"a constant image of {value}"
    dead = lively(method, 3, torch.float32)
    with torch.no_grad():
        for p in dead.parameters():
            p.zero_()
    assert bool(run(method, dead, pictures(N, torch.float32), TARGET).isfinite().all()), "a network of zeros"


def check_leaks_nothing(method: Any, world: World) -> None:
    model, x = lively(method, 3, torch.float32), pictures(1, torch.float32)
    target = TARGET[:1]

    for create_graph in (False, True) if differentiable(method) else (False,):
        run(method, model, x, target, create_graph=create_graph)
        gc.collect()
        gc.freeze()  # what there was before is not counted again
        try:
            for _ in range(20 if create_graph else 180):
                run(method, model, x, target, create_graph=create_graph)
            gc.collect()
            left = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
        finally:
            gc.unfreeze()
        assert left == 0, f"{left} tensors are left behind"


def check_looks_at_the_object(method: Any, world: World) -> None:
    seen = world.objects
    x, y, mask = seen.x[:24], seen.y[:24], seen.mask[:24]
    weighs = substituted(resized(method, REAL), "attack", PGD(norm="l2", eps=1.0, steps=20))  # signs weigh all alike
    maps = run(weighs, seen.model, x, y).abs()
    maps = maps.sum(1) if maps.ndim == 4 else maps
    maps = resize(maps, (x.shape[2], x.shape[3])) if maps.shape[1:] != mask.shape[1:] else maps
    total = maps.sum((1, 2))
    assert bool((total > 0).all()), "an empty map explains nothing"
    inside = (maps * mask).sum((1, 2)) / total
    ratio = float((inside / mask.float().mean((1, 2))).mean())
    assert ratio > ON_OBJECT, (
        f"the map has {ratio:.2f} times the mass of chance on the object; {ON_OBJECT} is the least"
    )


def check_depends_on_the_model(method: Any, world: World) -> None:
    seen = world.objects
    other = refill(Trained(3, (12, 12, 16), (1, 2, 1)), seed=21, gain=1.5).eval()
    maps = [run(method, model, seen.x[:16], seen.y[:16]).flatten(1) for model in (seen.model, other)]
    assert all(bool((m.norm(dim=1) > 0).any()) for m in maps), "an empty map explains nothing"
    alike = float(functional.cosine_similarity(*maps, dim=1).mean())
    assert alike < 0.9, f"random weights give nearly the same map (cosine {alike:.2f}): it does not depend on the model"


def check_depends_on_the_target(method: Any, world: World) -> None:
    first, second = run(method, lively(method), pictures(N), torch.tensor([[0, 1]] * N)).unbind(1)
    gap = (first - second).flatten(1).norm(dim=1) / first.flatten(1).norm(dim=1)
    assert float(gap.min()) > 0.01, "another target gives the same map"


def check_refuses_what_is_no_input(method: Any, world: World) -> None:
    model, x = lively(method), pictures(N)
    for bad, words in (
        ((x * 255).to(torch.uint8), "255"),
        (x[0], r"\(N, C, H, W\)"),
        (x - 0.5, r"\[-0\.[0-9]+, 0\.[0-9]+\]"),
        (x * 255, "divide by 255"),
        (x.index_fill(0, torch.tensor([1]), torch.nan), "NaN"),
    ):
        with pytest.raises(InputError, match=words):
            run(method, model, bad, TARGET)
    for bad in (TARGET.double(), TARGET[:-1], TARGET + 2, TARGET - 1, TARGET.view(1, N), 0):
        with pytest.raises(InputError, match="targets"):
            run(method, model, x, bad)  # type: ignore[arg-type]


def check_explains_or_refuses_other_networks(method: Any, world: World) -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Softplus(), nn.Linear(8, 3))
    for model in (refill(Headless(), 3).double(), refill(bare, 4).double()):
        try:
            maps = run(method, model, pictures(N), TARGET)
        except InputError as error:
            sentence = str(error)
            assert len(sentence.split()) > 5, "a refusal says what is needed"
        else:
            assert len(maps) == N
            assert bool(maps.isfinite().all())


def check_every_tensor_has_a_device(method: Any, world: World) -> None:
    model, x, stream = lively(method), pictures(N), Stream(4)
    plain = run(method, model, x, TARGET)
    torch.set_default_device("meta")  # a tensor made without a device would land there, and mixing them raises
    try:
        out = method(model, x, TARGET, rng=stream)
        method(model, x, SEVERAL, rng=stream)
    finally:
        torch.set_default_device(None)
    assert out.device == x.device
    assert torch.equal(out, plain)
