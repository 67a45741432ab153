"""APGD and FAB beside torchattacks, which carries the authors' code.

APGD(form="code", start="surface") walks through the same points, given the same random start: compared value by
value. torchattacks returns the last misclassified iterate or, where none was, the clean image, and so its verdicts
and its iterates are compared, not what it returns. Its DLR attack differs in nothing else; its targeted form takes
the step size of the first image for all in l2, and is compared in linf.
FAB of torchattacks computes in float32, has no final search, returns the clean image where it failed, and tries a
further target only where the ones before failed, which is stop_when_fooled but for leaving within a run.
"""

import pytest
import torch
from torch import nn

from pellucid.attacks import APGD, FAB
from pellucid.rng import Stream

torchattacks = pytest.importorskip("torchattacks")


class Recorded(nn.Module):
    """A network of many local maxima that remembers what it was asked with gradients."""

    def __init__(self, generator, classes=6, gain=3.0):
        super().__init__()
        layers = nn.Flatten(), nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, classes)
        self.layers = nn.Sequential(*layers)
        self.asked = []
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * (gain / p.shape[-1] ** 0.5 if p.ndim == 2 else 1))

    def forward(self, x):
        if x.requires_grad:
            self.asked.append(x.detach().clone())
        return self.layers(x)


@pytest.fixture
def network(generator):
    return Recorded(generator).double().eval()


@pytest.fixture
def images(generator):
    return torch.rand(8, 1, 3, 4, generator=generator, dtype=torch.float64)


class SameStart:
    """Stands for a Stream and gives what torchattacks draws after seeding with 0."""

    def __init__(self, like):
        torch.manual_seed(0)
        self.rand = torch.rand(like.shape)
        torch.manual_seed(0)
        self.randn = torch.randn(like.shape)


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_apgd_walks_through_the_points_of_the_authors_code(network, images, norm, loss, steps, monkeypatch):
    labels = network(images).argmax(1)
    eps = 0.15 if norm == "Linf" else 0.6
    drawn = SameStart(images)
    monkeypatch.setattr(Stream, "uniform", lambda self, like, *rest: drawn.rand.to(like))
    monkeypatch.setattr(Stream, "normal", lambda self, like, *rest: drawn.randn.to(like))
    theirs = torchattacks.APGD(network, norm=norm, eps=eps, steps=steps, loss=loss, seed=0)
    network.asked.clear()
    out = theirs(images, labels)
    their_points = list(network.asked)

    network.asked.clear()
    name = {"ce": "cross_entropy", "dlr": "dlr"}[loss]
    ours = APGD(norm=norm.lower(), eps=eps, steps=steps, loss=name, form="code", start="surface")
    result = ours(network, images, labels)
    our_points = list(network.asked)
    assert len(our_points) == steps  # theirs asks for one gradient more, and does not use it
    assert len(their_points) == steps + 1
    comparable = torch.ones(len(images), dtype=torch.bool)
    for k, (a, b) in enumerate(zip(our_points, their_points)):
        torch.testing.assert_close(a[comparable], b[comparable], rtol=0, atol=1e-5, msg=f"x_{k}")
        if loss == "dlr":  # where the label ranks third the ratio is 1 whatever x is: its gradient is rounding noise
            comparable &= network.layers(a).argsort(1, descending=True)[:, 2] != labels
    assert comparable.sum() >= 4
    with torch.no_grad():
        verdicts = [network(x).argmax(1) != labels for x in (result, out)]
    assert torch.equal(*verdicts)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_targeted_apgd_has_the_verdicts_of_the_authors_code(network, images, norm):
    labels = network(images).argmax(1)
    eps = 0.05 if norm == "Linf" else 0.15
    theirs = torchattacks.APGDT(network, norm=norm, eps=eps, steps=40, n_classes=6)(images, labels)
    ours = APGD(norm=norm.lower(), eps=eps, steps=40, loss="targeted_dlr", form="code", start="surface")
    result = ours(network, images, labels, rng=Stream(1), stop_when_fooled=True)
    with torch.no_grad():
        verdicts = [network(x).argmax(1) != labels for x in (result, theirs)]
    assert torch.equal(*verdicts)
    assert 0 < int(verdicts[0].sum()) < len(images)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_fab_finds_the_distances_of_the_authors_code(generator, norm):
    network = Recorded(generator, gain=1.5).eval()
    images = torch.rand(12, 1, 3, 4, generator=generator)
    labels = network(images).argmax(1)
    order = torch.inf if norm == "Linf" else 2
    theirs = torchattacks.FAB(network, norm=norm, eps=5.0, steps=30, n_restarts=1, multi_targeted=True, n_classes=6)
    theirs.n_target_classes = 1  # the likeliest other class: one run, in which every point is the same as ours
    their_points = theirs(images, labels)
    ours = FAB(norm=norm.lower(), eps=5.0, steps=30, targets=1, final_steps=0)
    our_points = ours(network, images, labels)
    with torch.no_grad():
        assert torch.equal(network(our_points).argmax(1), network(their_points).argmax(1))
        fooled = network(our_points).argmax(1) != labels
    assert fooled.sum() > 6
    distances = [
        torch.linalg.vector_norm((p - images).flatten(1), ord=order, dim=1) for p in (our_points, their_points)
    ]
    torch.testing.assert_close(distances[0][fooled], distances[1][fooled], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        cut = FAB(norm=norm.lower(), eps=5.0, steps=30, targets=1)(network, images, labels)
    shorter = torch.linalg.vector_norm((cut - images).flatten(1), ord=order, dim=1)
    assert (shorter <= distances[0] + 1e-6).all()
