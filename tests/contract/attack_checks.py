"""What every attack promises.

A check takes a tiny attack and the world; all `check_*` are run on every attack.

An attack on labels whose single images may end below where they began, as it follows a stand-in for the gradient,
says so in a class attribute `monotone = False`; it has to rise on average.
An attack whose aim is not to change the label says so in a class attribute `aim` (default "label"; "map" for
attacks on explanations); the checks of success then do not apply.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.attacks import FGSM
from pellucid.errors import InputError, PellucidError
from pellucid.maths.losses import cross_entropy, log_probability
from pellucid.rng import Stream

from .tiny import REAL, has_field, resized
from .worlds import Breaks, World, numbers, pictures, predicted, rough, smooth, undisturbed

N = 5
STRENGTH = {"linf": 0.2, "l2": 0.9, "l1": 6.0}  # between one step and many, on the world's classifier


def labels(n: int, classes: int = 3) -> Tensor:
    return torch.arange(n) % classes


def run(attack: Any, model: nn.Module, x: Tensor, y: Tensor, positions: list[int] | None = None, **more: Any) -> Tensor:
    stream = Stream(4, None if positions is None else torch.tensor(positions))
    return attack(model, x, y, rng=stream, **more)


def in_a_ball(attack: Any) -> bool:
    return hasattr(attack, "norm") and has_field(type(attack), "eps")


def changes_labels(attack: Any) -> bool:
    return getattr(attack, "aim", "label") == "label"


def learns(attack: Any) -> bool:
    """Say whether the images of a call are learned from together (`fit`), so that they depend on each other."""
    return hasattr(attack, "fit")


def distance(attack: Any, a: Tensor, b: Tensor) -> Tensor:
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[attack.norm]
    return torch.linalg.vector_norm((a - b).double().flatten(1), ord=order, dim=1)


def assert_in_the_ball(attack: Any, out: Tensor, x: Tensor) -> None:
    if in_a_ball(attack):
        far = float(distance(attack, out, x).max())
        assert far <= attack.eps * (1 + 1e-5) + 1e-6, f"eps is {attack.eps}, but an image moved by {far}"


def check_same_kind_of_images(attack: Any, world: World) -> None:
    for dtype in (torch.float32, torch.float64):
        for channels, size in ((1, (8, 6)), (3, (6, 9))):
            x, model = numbers(N, channels, *size, seed=5, dtype=dtype), smooth(3, dtype, channels)
            x = (2 * x - 0.5).clamp(0, 1)  # half of the pixels at an end of the range
            out = run(attack, model, x, labels(N))
            assert (out.shape, out.dtype, out.device) == (x.shape, x.dtype, x.device)
            assert not out.requires_grad, "the images are a result, not part of a graph"
            assert out.data_ptr() != x.data_ptr(), "the images handed over must not be handed back by reference"
            assert bool(((out >= 0) & (out <= 1)).all()), "outside [0, 1], or not a number"


def check_stays_in_the_ball(attack: Any, world: World) -> None:
    if not in_a_ball(attack):
        return
    x, model = numbers(N, 1, 8, 6, seed=5), smooth()
    for eps in (attack.eps, 0.01, 0.7):
        sized = dataclasses.replace(attack, eps=eps)
        for y, leave in (
            (labels(N), False),
            ((predicted(model, x) + 1) % 3, True),
        ):  # also those that leave at once
            far = float(distance(attack, run(sized, model, x, y, stop_when_fooled=leave), x).max())
            assert far <= eps + 1e-6, f"eps is {eps}, but an image moved by {far}"
        x32 = x.float()
        far = float(
            distance(
                attack,
                run(dataclasses.replace(attack, eps=eps), smooth(3, torch.float32), x32, labels(N)),
                x32,
            ).max()
        )
        assert far <= eps * (1 + 1e-5) + 1e-6, f"eps is {eps}, but a float32 image moved by {far}"


def check_eps_zero_changes_nothing(attack: Any, world: World) -> None:
    if not in_a_ball(attack):
        return
    x = numbers(N, 1, 8, 6, seed=5)
    out = run(dataclasses.replace(attack, eps=0), smooth(), x, labels(N))
    assert torch.equal(out, x), "at eps = 0 the images must come back as they are"


def check_same_stream_same_images(attack: Any, world: World) -> None:
    x, y, model = pictures(N), labels(N), smooth()
    first = run(attack, model, x, y)
    torch.rand(3)  # the global generator plays no part
    assert torch.equal(first, run(attack, model, x, y)), "the same stream gave other images"
    unnamed = attack(model, x, y)
    assert torch.equal(unnamed, attack(model, x, y, rng=Stream(0, torch.arange(N)))), (
        "rng=None is seed 0, positions 0..N-1"
    )


def check_another_stream_changes_stochastic_attacks_only(attack: Any, world: World) -> None:
    x, y, model = pictures(N), labels(N), smooth()

    def varies(*streams: Stream) -> bool:  # of three: from two starts all may end in the same corners of a ball
        first = attack(model, x, y, rng=streams[0])
        return any(not torch.equal(first, attack(model, x, y, rng=stream)) for stream in streams[1:])

    by_seed = varies(*(Stream(seed) for seed in (1, 2, 3)))
    if getattr(attack, "random_start", None) is True:
        assert by_seed, "a random start must depend on the stream"
    if getattr(attack, "random_start", None) is False and not has_field(type(attack), "sigma"):
        assert not by_seed or getattr(attack, "target", None) == "random", (
            "no random start, yet it depends on the stream"
        )
    by_position = varies(*(Stream(1, torch.arange(N) + shift) for shift in (0, 1000, 2000)))
    assert by_seed == by_position, "the numbers must depend on the seed and the positions alike"


def check_leaves_the_model_as_it_was(attack: Any, world: World) -> None:
    x, y, model = pictures(N, torch.float32), labels(N), rough()
    for leave in (False, True):
        with undisturbed(model, x, y):
            run(attack, model, x, y, stop_when_fooled=leave)
    leaf = x.clone().requires_grad_(True)
    with undisturbed(model, leaf, y):
        run(attack, model, leaf, y)


def check_leaves_the_model_as_it_was_after_an_exception(attack: Any, world: World) -> None:
    x, y = pictures(N, torch.float32), labels(N)
    for after in (0, 1):
        model = Breaks(rough(), after)
        model.train()
        model.inner.other_norm.eval()
        with undisturbed(model, x, y):
            try:
                run(attack, model, x, y)
            except PellucidError:
                return  # needs more than logits of a foreign network; refused in a sentence
            except RuntimeError as error:
                if "the forward pass broke" not in str(error):
                    raise
            else:
                assert after == 1, "the network's exception was swallowed"


def check_together_as_alone(attack: Any, world: World) -> None:
    if learns(attack):
        return
    x, y, model = pictures(N), labels(N), smooth()
    for leave in (False, True):
        together = run(attack, model, x, y, list(range(N)), stop_when_fooled=leave)
        for i in range(N):
            alone = run(attack, model, x[i : i + 1], y[i : i + 1], [i], stop_when_fooled=leave)
            gap = float((alone - together[i : i + 1]).abs().max())
            assert gap <= 1e-8, f"image {i} alone differs from image {i} in a batch of {N} by {gap}"
        order = torch.tensor([3, 0, 4, 1, 2])
        shuffled = run(attack, model, x[order], y[order], order.tolist(), stop_when_fooled=leave)
        assert torch.allclose(shuffled, together[order], atol=1e-8), "the order of the batch matters"


def check_together_as_alone_in_float32(attack: Any, world: World) -> None:
    if learns(attack):
        return
    (x, y), model = world.known, world.classifier
    x, y = x[:24], y[:24]
    together = run(attack, model, x, y, list(range(len(x))))
    alone = torch.cat([run(attack, model, x[i : i + 1], y[i : i + 1], [i]) for i in range(len(x))])
    fooled = [predicted(model, out) != y for out in (together, alone)]
    assert torch.equal(*fooled), "another success alone than in a batch"
    share = float(((together - alone).abs() <= 1e-5).float().mean())
    assert share >= 0.999, f"only {share:.2%} of the pixels agree between alone and together"


def check_what_was_learned_applies_to_each_image_alone(attack: Any, world: World) -> None:
    if not learns(attack):
        return
    x, y, model = pictures(N), labels(N), smooth()
    with undisturbed(model, x, y):
        state = attack.fit(model, x, y, rng=Stream(4))
    again = attack.fit(model, x, y, rng=Stream(4))
    assert state.keys() == again.keys()
    assert all(torch.equal(state[k], again[k]) for k in state), "the same stream taught it something else"
    together = attack.apply(x, state)
    alone = torch.cat([attack.apply(x[i : i + 1], state) for i in range(N)])
    assert torch.allclose(alone, together, atol=1e-8), "an image depends on those it is changed with"
    assert torch.equal(together, run(attack, model, x, y)), "a call is learning from its images, then applying"


def check_batches_of_none_and_one(attack: Any, world: World) -> None:
    for leave in (False, True):
        empty = attack(smooth(), pictures(N)[:0], labels(N)[:0], stop_when_fooled=leave)
        assert empty.shape == (0, 1, 8, 6)
        assert run(attack, smooth(), pictures(1), labels(1), stop_when_fooled=leave).shape == (1, 1, 8, 6)


def check_images_that_are_fooled_already_stay(attack: Any, world: World) -> None:
    if not changes_labels(attack) or getattr(attack, "target", None) is not None:
        return
    x, model = pictures(N), smooth()
    wrong = (predicted(model, x) + 1) % 3
    out = run(attack, model, x, wrong, stop_when_fooled=True)
    assert bool((predicted(model, out) != wrong).all()), "an image that was fooled is not fooled any more"


def check_stopping_early_costs_no_success(attack: Any, world: World) -> None:
    if not changes_labels(attack):
        return
    (x, y), model = world.known, world.classifier
    full, early = (run(attack, model, x, y, stop_when_fooled=leave) for leave in (False, True))
    fooled_full, fooled_early = (predicted(model, out) != y for out in (full, early))
    assert float(fooled_early.float().mean()) >= float(fooled_full.float().mean()) - 1e-6, (
        "leaving early lost successes"
    )


def check_any_number_of_classes(attack: Any, world: World) -> None:
    for classes in (2, 3, 10):
        out = run(attack, smooth(classes), pictures(N), labels(N, classes))
        assert out.shape == (N, 1, 8, 6)
        assert bool(out.isfinite().all()), f"{classes} classes"


def check_works_without_grad_mode(attack: Any, world: World) -> None:
    x, y, model = pictures(N), labels(N), smooth()
    plain = run(attack, model, x, y)
    with torch.no_grad():
        assert torch.equal(plain, run(attack, model, x, y)), "under no_grad the result differs"
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        inner = run(attack, model, x.clone(), y.clone())
    assert torch.equal(plain, inner), "under inference_mode the result differs"


def check_refuses_what_is_no_image(attack: Any, world: World) -> None:
    x, y, model = pictures(N), labels(N), smooth()
    for bad, words in (
        ((x * 255).to(torch.uint8), "255"),
        (x[0], r"\(N, C, H, W\)"),
        (x.flatten(1), r"\(N, C, H, W\)"),
        (x - 0.5, r"\[-0\.[0-9]+, 0\.[0-9]+\]"),
        (x * 255, r"spans \[.*divide by 255"),
        (x.index_fill(0, torch.tensor([1]), torch.nan), "NaN"),
        (x.tolist(), "tensor"),
    ):
        with pytest.raises(InputError, match=words):
            attack(model, bad, y)


def check_refuses_what_is_no_label(attack: Any, world: World) -> None:
    x, y, model = pictures(N), labels(N), smooth()
    for bad in (y.double(), y.bool(), y[:-1], y + 1, y - 1, y[:, None].expand(N, 2), y.tolist()):
        with pytest.raises(InputError, match="labels"):
            attack(model, x, bad)
        if type(bad) is Tensor and not torch.equal(bad, y):
            with pytest.raises(InputError):
                attack(model, x, y, target=bad)


def check_a_target_is_approached(attack: Any, world: World) -> None:
    if not changes_labels(attack):
        return
    (x, y), model = world.known, world.classifier
    attack = resized(attack, REAL)
    aims = [(y + shift) % 10 for shift in (1, 5)]
    try:
        outs = [run(attack, model, x, y, target=aim) for aim in aims]
    except InputError:
        return  # an attack that knows no targets says so; what it must not do is ignore them
    with torch.no_grad():
        clean, first, second = (cross_entropy(model(v), aims[0]) for v in (x, *outs))
    assert float(first.mean()) < float(clean.mean()), "the loss of the target did not fall"
    assert float(first.mean()) < float(second.mean()) - 0.1, "another target gives the same images: it is ignored"
    assert float((first < clean).float().mean()) > 0.75, "the target's loss falls for few images only"


def check_maximise_climbs_any_objective(attack: Any, world: World) -> None:
    x, model = pictures(N), smooth()
    chosen = torch.tensor([2, 0, 1, 0, 2])

    def objective(point: Tensor, rows: Tensor) -> Tensor:
        assert (rows.dtype, rows.shape) == (torch.int64, (len(point),)), "one row number per image"
        return log_probability(model(point), chosen[rows])

    model.requires_grad_(False)
    out = climbed(attack, objective, x)
    if out is None:
        return
    assert out.shape == x.shape
    assert bool(((out >= 0) & (out <= 1)).all())
    everyone = torch.arange(N)
    # An effect that is always on the image, such as snow, is climbed in from what it is without the attacker.
    begun = attack.unoptimised(x, rng=Stream(4)) if hasattr(attack, "unoptimised") else x
    with torch.no_grad():
        before, after = objective(begun, everyone), objective(out, everyone)
    if getattr(attack, "monotone", True):
        assert float(after.mean()) > float(before.mean()), "the objective did not rise"
        assert int((after > before).sum()) >= N - 1, "the objective rose for some rows only: are `rows` the right ones?"
    else:
        assert_rises_on_average(attack, world)
    if in_a_ball(attack):
        assert float(distance(attack, out, x).max()) <= attack.eps + 1e-6
    for i in range(0 if learns(attack) else N):  # an objective that knows row i only under its own number
        own = chosen[i : i + 1]
        alone = attack.maximise(
            lambda p, rows, own=own: log_probability(model(p), own[rows]),
            x[i : i + 1],
            rng=Stream(4, torch.tensor([i])),
        )
        assert torch.allclose(alone, out[i : i + 1], atol=1e-8), f"row {i} alone differs from row {i} in the batch"


def assert_rises_on_average(attack: Any, world: World) -> None:
    """Assert what an attack promises that follows a stand-in for the gradient (`monotone = False`)."""
    (x, y), model = world.known, world.classifier

    def objective(point: Tensor, rows: Tensor) -> Tensor:
        return log_probability(model(point), (y[rows] + 1) % 10)

    out, begun = attack.maximise(objective, x, rng=Stream(4)), attack.unoptimised(x, rng=Stream(4))
    with torch.no_grad():
        before, after = (float(objective(v, torch.arange(len(x))).mean()) for v in (begun, out))
    assert after > before + 0.3, f"the objective went from {before:.2f} to {after:.2f}"


def climbed(attack: Any, objective: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor | None:
    """Return what `maximise` gives, None for an attack that refuses it in a sentence of its own."""
    try:
        return attack.maximise(objective, x, rng=Stream(4))
    except PellucidError:
        return None


def check_every_tensor_has_a_device(attack: Any, world: World) -> None:
    x, y, model = pictures(N), labels(N), smooth()
    plain = run(attack, model, x, y)
    stream = Stream(4)
    torch.set_default_device("meta")  # a tensor made without a device would land there, and mixing them raises
    try:
        out = attack(model, x, y, rng=stream)
        targeted = changes_labels(attack)
        if targeted:
            attack(model, x, y, rng=stream, stop_when_fooled=True)
        climbed(attack, lambda p, rows: model(p)[:, 0], x)
    finally:
        torch.set_default_device(None)
    assert out.device == x.device
    assert torch.equal(out, plain)


def check_it_works(attack: Any, world: World) -> None:
    """One step beats noise, many beat one of the same size, all beat their change with shuffled pixels.

    What is learned need not beat one step: that follows each image's own gradient, which a learner does not ask for.
    """
    if not changes_labels(attack):
        return
    (x, y), model = world.known, world.classifier
    if learns(attack):  # one change for all images hardly fools a network that was trained against a change for each
        model = world.beginner
    real = resized(attack, REAL)
    if in_a_ball(real) and has_field(type(real), "eps"):
        real = dataclasses.replace(real, eps=STRENGTH[real.norm])

    def success(out: Tensor) -> float:
        return float((predicted(model, out) != y).float().mean())

    out = run(real, model, x, y)
    reached = success(out)
    shift = (out - x).flatten(1)
    places = torch.argsort(numbers(len(x), shift.shape[1], seed=6), dim=1)
    shuffled = success((x + shift.gather(1, places).view_as(x)).clamp(0, 1))
    assert reached >= shuffled + 0.2, (
        f"success {reached:.2f}, against {shuffled:.2f} for the same change, pixels shuffled"
    )
    if in_a_ball(real):
        noise = 2 * (numbers(*x.shape, seed=8).float() > 0.5).float() - 1
        noise = noise * real.eps / float(distance(real, noise[:1], torch.zeros_like(noise[:1])))
        by_noise = success((x + noise).clamp(0, 1))
        assert reached >= by_noise + 0.2, f"success {reached:.2f}, against {by_noise:.2f} for noise of the same size"
    if in_a_ball(real) and not learns(real) and any(has_field(type(real), name) for name in REAL):
        by_one = success(one_step(model, x, y, real.norm, real.eps, getattr(real, "target", None)))
        assert reached >= by_one + 0.05, f"success {reached:.2f} in many steps, {by_one:.2f} in one of the same size"


def one_step(model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float, rule: Any) -> Tensor:
    """Return x after one step, towards the target of an attack that has a rule for it."""
    if norm == "linf":
        return FGSM(eps=eps, target=rule)(model, x, y, rng=Stream(4))
    leaf = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
    size = torch.linalg.vector_norm(slope.flatten(1), ord=2 if norm == "l2" else 1, dim=1)
    return (x + eps * slope / size.view(-1, 1, 1, 1)).clamp(0, 1)
