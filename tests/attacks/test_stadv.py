import pytest
import torch
from torch import nn

from pellucid.attacks import Elastic, StAdv
from pellucid.errors import SpecError
from pellucid.maths import counted, cross_entropy, margin
from pellucid.maths.flow import neighbour_loss, pixels, resample, total_variation
from pellucid.metrics import predict


@pytest.fixture
def images():
    """Smooth bumps at four places, which shifts turn into each other."""
    across = torch.arange(10, dtype=torch.float64)
    places = [(2.5, 3.0), (2.5, 6.0), (6.5, 3.0), (6.5, 6.0)]
    bumps = [torch.exp(-((across[:9, None] - r) ** 2 + (across - c) ** 2) / 5) for r, c in places]
    return torch.stack(bumps)[:, None]


class Halves(nn.Module):
    """Two classes: how bright the left and the right half of the image are."""

    def __init__(self, gain=2.0):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        ramp = torch.linspace(-1, 1, x.shape[3], dtype=x.dtype, device=x.device)
        side = self.gain * (x * ramp).flatten(1).sum(1)
        return torch.stack([-side, side], 1)


LABELS = torch.tensor([0, 1, 0, 1])


def objective(form, x, flow):
    """Return what each form lowers, from its formula."""
    if form == "zhang":
        return -cross_entropy(Halves(0.3)(resample(x, pixels(flow), "zeros")), LABELS) + 0.05 * total_variation(flow)
    return (-margin(Halves()(resample(x, flow)), LABELS)).clamp(min=0) + 0.05 * neighbour_loss(flow)


def test_form_xiao_lowers_its_objective(images):
    still = torch.zeros(4, 2, 9, 10, dtype=torch.float64)
    before = objective("xiao", images, still)
    hard = StAdv(steps=6, weight=0.05)
    met = []

    def seen(point, rows):
        met.append(margin(Halves()(point), LABELS[rows]).detach())
        return margin(Halves()(point), LABELS[rows])

    out = hard.maximise(seen, images)
    assert bool((margin(Halves()(out), LABELS) > -before + 0.05 * neighbour_loss(still)).all())
    assert bool((met[-1] > met[0]).all())


@pytest.mark.parametrize("steps", [1, 4, 15])
def test_form_zhang_goes_where_torch_goes_with_each_image_alone(images, steps):
    ours = StAdv(form="zhang", steps=steps)(Halves(0.3), images, LABELS)
    for i in range(4):
        flow = torch.zeros_like(images).expand(4, 2, 9, 10).clone().requires_grad_(True)
        optimiser = torch.optim.LBFGS([flow], lr=0.5, max_iter=steps, max_eval=10**9)

        def closure(i=i, flow=flow, optimiser=optimiser):
            optimiser.zero_grad()
            loss = objective("zhang", images, flow)[i]
            loss.backward()
            return loss

        optimiser.step(closure)
        theirs = resample(images, pixels(flow.detach()), "zeros")[i]
        torch.testing.assert_close(ours[i], theirs, rtol=0, atol=1e-8)


def test_form_xiao_fools_all_at_the_smallest_smooth_flow(images):
    network = Halves()
    out = StAdv()(network, images, LABELS)
    assert bool((predict(network, out) != LABELS).all())
    away = margin(network(out), LABELS)
    assert float(away.max()) < 0.3, "further beyond the boundary than the flow loss lets it go"
    sure = StAdv(confidence=0.5)(network, images, LABELS)
    assert float(margin(network(sure), LABELS).min()) > 0.3
    assert torch.equal(StAdv()(network, images, 1 - LABELS), images), "fooled already: the flow stays zero"


def test_a_target_is_reached(images):
    out = StAdv()(Halves(), images, LABELS, target=1 - LABELS)
    assert torch.equal(predict(Halves(), out), 1 - LABELS)


def test_more_weight_leaves_a_smaller_change(images):
    change = [(StAdv(weight=w)(Halves(), images, LABELS) - images).flatten(1).norm(dim=1) for w in (0.001, 0.05)]
    assert float(change[1].mean()) < float(change[0].mean())


def test_it_needs_less_change_than_elastic_deformation(images):
    network = Halves()
    smooth, elastic = (
        attack(network, images, LABELS) for attack in (StAdv(), Elastic(eps=2, steps=15, random_start=False))
    )
    for out in (smooth, elastic):
        assert bool((predict(network, out) != LABELS).all())
    sizes = [(out - images).flatten(1).norm(dim=1) for out in (smooth, elastic)]
    assert bool((sizes[0] < sizes[1]).all())


def test_images_that_succeeded_cost_no_more(images):
    with counted() as full:
        StAdv(form="zhang", steps=20)(Halves(0.3), images, LABELS)
    assert full.backward == 80
    for network, attack in ((Halves(), StAdv(steps=20)), (Halves(0.3), StAdv(form="zhang", weight=0, steps=20))):
        with counted() as full:
            attack(network, images, LABELS)
        with counted() as early:
            out = attack(network, images, LABELS, stop_when_fooled=True)
        assert bool((predict(network, out) != LABELS).all())
        assert early.backward < full.backward


def test_what_form_zhang_does_not_have_is_refused():
    with pytest.raises(SpecError, match="confidence"):
        StAdv(form="zhang", confidence=1)
