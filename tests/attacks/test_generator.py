import pytest
import torch
from torch import nn

from pellucid.attacks import GenerativePerturbation
from pellucid.attacks.generator import Critic, Network
from pellucid.attacks.objective import Setup, label_objective
from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.maths.resume import keeping
from pellucid.metrics import predict
from pellucid.rng import Stream


class Halves(nn.Module):
    """Two classes: which half of the image is brighter."""

    def forward(self, x):
        side = 4 * (x[..., x.shape[3] // 2 :].mean((1, 2, 3)) - x[..., : x.shape[3] // 2].mean((1, 2, 3)))
        return torch.stack([-side, side], 1)


@pytest.fixture
def images(generator):
    y = torch.arange(24) % 2
    side = 0.06 * (2 * y - 1).view(-1, 1, 1, 1) * torch.tensor([-1.0, -1, -1, 1, 1, 1])
    x = 0.5 + side + 0.04 * (torch.rand(24, 1, 8, 6, generator=generator) - 0.5)
    assert torch.equal(predict(Halves(), x), y)
    return x, y


def made(**given):
    return GenerativePerturbation(**({"eps": 0.15, "steps": 40, "batch_size": 12, "width": 4, "lr": 0.01} | given))


def success(x, y):
    return float((predict(Halves(), x) != y).float().mean())


@pytest.mark.parametrize("form", ["gap", "advgan"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.8)])
def test_it_fools_images_it_has_not_seen(images, form, norm, eps):
    """No single perturbation fools more than half: what moves one class over the border moves the other away from it.

    The loss of advgan ends at the border, so that images that were not learned from may end just before it.
    """
    x, y = images
    attack = made(form=form, norm=norm, eps=eps, steps=60, gan_weight=0.1, hinge_weight=0.01)
    state = attack.fit(Halves(), x[:16], y[:16], rng=Stream(1))
    assert success(attack.apply(x[16:], state), y[16:]) >= (0.9 if form == "gap" else 0.75)
    shift = (attack.apply(x[16:], state) - x[16:]).flatten(1)
    assert float(torch.linalg.vector_norm(shift, ord=torch.inf if norm == "linf" else 2, dim=1).max()) <= eps + 1e-6


def reference(attack, state, x, y):
    """The papers' formulas, trained by PyTorch's own Adam on modules; all images in one batch."""

    def module(part, network):
        network.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})
        return network.double(), torch.optim.Adam(network.parameters(), lr=attack.lr, betas=(0.5, 0.999))

    g, g_steps = module("generator.", Network(1, attack.width))
    if attack.form == "advgan":
        d, d_steps = module("critic.", Critic(1, attack.width))
    for _ in range(attack.steps):
        raw = torch.tanh(g(x))
        lengths = [r.abs().max() if attack.norm == "linf" else (r.square().sum() + 1e-30).sqrt() for r in raw]
        delta = torch.stack([r * (attack.eps / n if n > attack.eps else 1.0) for r, n in zip(raw, lengths)])
        moved = (x + delta).clamp(0, 1)
        logits = Halves()(moved)
        if attack.form == "gap":
            loss = -torch.log(nn.functional.cross_entropy(logits, y) + 1e-6)
        else:
            own, other = logits.gather(1, y[:, None])[:, 0], logits.gather(1, 1 - y[:, None])[:, 0]
            lengths = raw.square().sum((1, 2, 3)).add(1e-12).sqrt()
            longest = attack.eps * (48**0.5 if attack.norm == "linf" else 1)
            loss = (own - other).relu().mean() + attack.gan_weight * ((d(moved) - 1) ** 2).mean()
            loss = loss + attack.hinge_weight * (lengths - longest).relu().mean()
        g_steps.zero_grad()
        loss.backward()
        g_steps.step()
        if attack.form == "advgan":
            loss = ((d(x) - 1) ** 2).mean() + (d(moved.detach()) ** 2).mean()
            d_steps.zero_grad()
            loss.backward()
            d_steps.step()
    return dict(g.named_parameters())


@pytest.mark.parametrize(("form", "norm", "eps"), [("gap", "linf", 0.01), ("gap", "l2", 0.05), ("advgan", "l2", 0.05)])
def test_training_follows_the_formulas(images, form, norm, eps):
    x, y = images[0].double(), images[1]
    attack = made(form=form, norm=norm, eps=eps, steps=4, batch_size=24, gan_weight=0.7, hinge_weight=3.0)
    begun = attack._begin(x, seed=3)
    setup = Setup(x, y, None, Stream(0))
    evaluate = label_objective(Halves(), setup, attack._loss)
    trained = attack._train(evaluate, x, begun, range(4), 3)
    expected = reference(attack, begun, x, y)
    for name, value in expected.items():
        torch.testing.assert_close(trained[f"generator.{name}"], value.detach(), rtol=0, atol=1e-7)
        assert name == "first.bias" or not torch.equal(trained[f"generator.{name}"], begun[f"generator.{name}"])


def test_the_hinge_holds_what_the_generator_makes_in_the_ball(images):
    x, y = images
    for norm, eps in (("linf", 0.1), ("l2", 0.8)):
        longest = eps * (48**0.5 if norm == "linf" else 1)
        far = []
        for weight in (0.0, 30.0):
            attack = made(form="advgan", norm=norm, eps=eps, gan_weight=0, hinge_weight=weight)
            state = attack.fit(Halves(), x, y)
            with torch.no_grad():
                g = attack._generated(attack._network(x), state, x)
            far.append(float(torch.linalg.vector_norm(g.flatten(1), dim=1).mean()))
        assert far[0] > 1.3 * longest
        assert 0.6 * longest < far[1] < 1.2 * longest


def test_a_target_is_learned(images):
    x, y = images
    out = made()(Halves(), x, y, target=torch.ones_like(y))
    assert float((predict(Halves(), out) == 1).float().mean()) >= 0.9


def test_universal_gives_all_images_one_perturbation(images):
    x, y = images
    attack = made(universal=True, eps=0.1)
    state = attack.fit(Halves(), x, y, rng=Stream(1))
    shift = attack.apply(x, state) - x
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-6)
    assert float(shift.abs().max()) > 0.05
    with pytest.raises(InputError, match="another kind"):
        attack.apply(x[..., :-1], state)


def test_eps_is_that_of_the_training(images):
    x, y = images
    state = made(eps=0.02).fit(Halves(), x, y)
    assert float((made(eps=0.5).apply(x, state) - x).abs().max()) <= 0.02 + 1e-6
    with pytest.raises(InputError, match="another kind"):
        made().apply(x.expand(-1, 3, -1, -1), state)


def test_an_interrupted_training_goes_on_and_gives_the_same(images, monkeypatch):
    monkeypatch.setattr("pellucid.attacks.generator._PIECE", 2)
    x, y = images
    attack = made(steps=5, form="advgan")
    plain = attack.fit(Halves(), x, y)
    memory = {}

    def forgetful(name, work):
        if name not in memory and len(memory) == 2:
            raise KeyboardInterrupt
        return memory.setdefault(name, memory.get(name) or work())

    with keeping(forgetful), pytest.raises(KeyboardInterrupt):
        attack.fit(Halves(), x, y)
    assert list(memory) == ["train-0", "train-1"]
    with keeping(lambda name, work: memory.get(name) or work()), counted() as passes:
        resumed = attack.fit(Halves(), x, y)
    assert passes.backward == 12
    assert plain.keys() == resumed.keys()
    assert all(torch.equal(plain[k], resumed[k]) for k in plain)


def test_a_new_network_perturbs_nothing_and_takes_any_size():
    for size in ((1, 1), (3, 5), (8, 6), (31, 50)):
        assert torch.equal(Network(3, 4)(torch.rand(2, 3, *size)), torch.zeros(2, 3, *size))


def test_an_objective_is_refused(images):
    with pytest.raises(InputError, match="objective"):
        made().maximise(lambda x, rows: x.flatten(1).sum(1), images[0])
