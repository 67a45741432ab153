import pytest
import torch
from torch.nn import functional

from pellucid.defences import CurvatureRegularization, Standard
from pellucid.protocols import Context
from pellucid.schedule import Ramp

from .derivatives import forgetful, labels, pictures, smooth, tied

PIXELS = 12


def penalty(network, ctx=None, **fields):
    defence = CurvatureRegularization(**{"weight": 1.0} | fields)
    return defence(network, pictures(), labels(), ctx)["curvature_penalty"]


def losses(network):
    return [lambda x, y=y: functional.cross_entropy(network(x.view(1, 1, 3, 4)), y[None]) for y in labels()]


def changes(network, h):
    """Return grad l(x + h z) - grad l(x), one image at a time: (N, D)."""
    found = []
    for loss, x in zip(losses(network), pictures().flatten(1)):
        g = torch.func.grad(loss)(x)
        found.append(torch.func.grad(loss)(x + h * g.sign() / PIXELS**0.5) - g)
    return torch.stack(found).detach()


@pytest.mark.parametrize("h", [0.3, 1.5])
def test_it_is_the_change_of_the_gradient_at_a_step(h):
    norms = changes(smooth(), h).norm(dim=1)
    terms = CurvatureRegularization(weight=0.7, h=h)(smooth(), pictures(), labels())
    assert list(terms) == ["cross_entropy", "curvature_penalty"]
    torch.testing.assert_close(terms["cross_entropy"], functional.cross_entropy(smooth()(pictures()), labels()))
    torch.testing.assert_close(terms["curvature_penalty"].detach(), 0.7 * norms.square().mean())
    torch.testing.assert_close(penalty(smooth(), h=h, squared=False).detach(), norms.mean())


def test_a_small_step_has_the_hessian():
    network, total = smooth(), 0.0
    for loss, x in zip(losses(network), pictures().flatten(1)):
        z = torch.func.grad(loss)(x).sign() / PIXELS**0.5
        total += float((torch.func.hessian(loss)(x) @ z).detach().square().sum()) / 6
    assert float(penalty(network, h=1e-4)) / 1e-8 == pytest.approx(total, rel=1e-3)


def test_another_unit_of_the_images_is_another_weight_and_step():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = smooth()

        def forward(self, x):
            return self.inner(x / 0.2)

    inside = CurvatureRegularization(weight=0.16, h=0.3)(Scaled(), 0.2 * pictures(), labels())
    outside = CurvatureRegularization(weight=4.0, h=1.5)(smooth(), pictures(), labels())
    torch.testing.assert_close(inside, outside)


def test_the_step_grows_with_the_ramp():
    ramp = Ramp(start=0.0, stop=0.8, until=0.5)
    for progress, h in ((0.25, 0.4), (0.5, 0.8), (1.0, 0.8)):
        found = penalty(smooth(), Context(progress=progress), ramp=ramp)
        torch.testing.assert_close(found, penalty(smooth(), h=h))
    assert penalty(smooth(), Context(progress=0.0), ramp=ramp).item() == 0


def test_the_penalty_can_take_running_statistics():
    network = tied()
    with torch.no_grad():
        network[2].running_mean += 0.3
    quiet = penalty(network, mode="eval")
    assert network.training
    assert network[2].training
    assert int(network[2].num_batches_tracked) == 1
    norms = changes(network.eval(), 1.5).norm(dim=1)
    torch.testing.assert_close(penalty(network, mode="eval"), penalty(network, mode="train"))
    torch.testing.assert_close(penalty(network, mode="eval").detach(), norms.square().mean())
    network.train()
    assert float((penalty(network) - quiet).abs()) > 1e-3 * float(quiet)


def test_both_gradients_have_the_same_dropout_mask():
    assert float(penalty(forgetful(), h=1e-6)) < 1e-9
    quiet = forgetful().eval()
    torch.testing.assert_close(penalty(forgetful(), mode="eval"), penalty(quiet))


def test_no_gradient_has_no_slope():
    network = smooth()
    with torch.no_grad():
        network[3].weight.zero_()
    for squared in (False, True):
        value = penalty(network, squared=squared)
        assert value.item() == 0
        value.backward()
        assert all(p.grad is None or bool((p.grad == 0).all()) for p in network.parameters())


def test_no_weight_is_plain_training():
    terms = CurvatureRegularization(weight=0.0)(smooth(), pictures(), labels())
    assert terms["curvature_penalty"].item() == 0
    torch.testing.assert_close(terms["cross_entropy"], Standard()(smooth(), pictures(), labels())["cross_entropy"])
