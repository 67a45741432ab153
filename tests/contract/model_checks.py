"""What every network promises.

A check takes a description; all `check_*` are run on each, in several image shapes.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.maths.cam import cam
from pellucid.models import load_classifier, save_classifier
from pellucid.models.classifier import Classifier, standardised
from pellucid.rng import global_seed

from .worlds import numbers

SHAPES = ((1, 28, 28), (3, 32, 32), (1, 20, 28))
CLASSES = 5
Shape = tuple[int, int, int]


def build(spec: Any, shape: Shape, seed: int = 0) -> Classifier:
    with global_seed(seed):
        return spec.build(shape[0], shape[1:], CLASSES).eval()


def images(shape: Shape, n: int = 3) -> Tensor:
    return numbers(n, *shape, seed=13, dtype=torch.float32)


@torch.no_grad()
def check_logits(spec: Any, shape: Shape, folder: Path) -> None:
    model, x = build(spec, shape), images(shape)
    logits = model(x)
    assert isinstance(model, Classifier)
    assert logits.shape == (3, CLASSES)
    assert bool(logits.isfinite().all())
    assert torch.equal(logits, model(x)), "in eval mode the same images give the same logits"
    assert torch.allclose(model(x[1:2]), logits[1:2], atol=1e-4), "an image alone has other logits than in a batch"
    assert float((logits[0] - logits[1]).abs().max()) > 1e-6, "the logits do not depend on the image"
    assert model(x[:0]).shape == (0, CLASSES)
    assert copy.deepcopy(model).double()(x.double()).dtype == torch.float64


def check_weights_come_from_the_seed(spec: Any, shape: Shape, folder: Path) -> None:
    state = torch.get_rng_state()
    first, same, other = (build(spec, shape, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[key], same[key]) for key in first), "the same seed gives the same weights"
    assert any(not torch.equal(first[key], other[key]) for key in first), "another seed gives other weights"


@torch.no_grad()
def check_features_then_classify(spec: Any, shape: Shape, folder: Path) -> None:
    model, x = build(spec, shape), images(shape)
    features = model.feature_map(x)
    assert features.ndim == 4
    assert torch.allclose(model(x), model.classify(features), atol=1e-6), "forward(x) is classify(feature_map(x))"
    if model.head is None:
        return
    assert torch.allclose(model.classify(features), model.head(features.mean((2, 3))), atol=1e-5), (
        "a declared head means classify(f) == head(f.mean((2, 3)))"
    )
    assert torch.allclose(cam(features, model.head)[1], model(x), atol=1e-5)
    assert "head" in dict(model.named_children()), "the head must be a submodule of its own, set in __init__"


@torch.no_grad()
def check_normalises(spec: Any, shape: Shape, folder: Path) -> None:
    model, x = build(spec, shape), images(shape)
    assert {"mean", "std"} <= model.state_dict().keys(), "mean and std are buffers, saved with the weights"
    mean, std = (torch.linspace(low, low + 0.2, shape[0]).view(1, -1, 1, 1) for low in (0.3, 0.5))
    own = standardised(x) if model.per_image else x
    model.per_image, per_image = False, model.per_image  # the images handed over are standardised already
    expected, features = model((own - mean) / std), model.feature_map((own - mean) / std)
    model.mean, model.std, model.per_image = mean, std, per_image
    assert torch.allclose(model(x), expected, atol=1e-5), "forward must apply (x - mean) / std"
    assert torch.allclose(model.feature_map(x), features, atol=1e-5), "feature_map must apply (x - mean) / std"
    if shape[0] == 1:
        assert not torch.allclose(model.features(x), features, atol=1e-5), (
            "features takes images that are normalised already"
        )


def check_trains(spec: Any, shape: Shape, folder: Path) -> None:
    model = build(spec, shape).train()
    x, y = images(shape, n=4), torch.arange(4) % CLASSES
    with global_seed(0):
        functional.cross_entropy(model(x), y).backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not bool((p.grad != 0).any()))
    ]
    assert not missing, f"no gradient reaches {', '.join(missing)}"
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def check_saves_and_loads(spec: Any, shape: Shape, folder: Path) -> None:
    model, x = build(spec, shape), images(shape)
    with global_seed(3):
        model.train()(images(shape, n=4))  # batch-norm statistics that are not the initial ones
    model.eval()
    save_classifier(folder, model, spec, shape, tuple("abcde"))
    back = load_classifier(folder)
    assert not back.training
    assert model.state_dict().keys() == back.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True))
    assert torch.equal(back(x), model(x))


def check_second_derivatives(spec: Any, shape: Shape, folder: Path) -> None:
    model, x = build(spec, shape), images(shape, n=2).requires_grad_(True)
    (slope,) = torch.autograd.grad(functional.cross_entropy(model(x), torch.tensor([0, 1])), x, create_graph=True)
    slope.square().sum().backward()
    reached = [p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters() if p.requires_grad]
    assert any(reached), "the input gradient cannot be trained"
    finite = [bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None]
    assert all(finite), "the second derivative is not finite"
