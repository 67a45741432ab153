import math

import pytest
import torch
from scipy import stats
from torch import nn

from pellucid.attacks import AAI, FGSM, PGD
from pellucid.errors import InputError
from pellucid.interpreters import CAM, Gradient
from pellucid.metrics import kendall_tau, predict, stability, stability_under_attack, stability_under_noise
from pellucid.models import Classifier
from pellucid.rng import Stream


class Pooled(Classifier):
    """Two smooth convolutions and a linear head on pooled features: CAM works, and has slopes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def features(self, x):
        return self.second(torch.tanh(3 * self.first(x)))


class Drawn:
    """An interpreter that draws its map, whatever the image."""

    def __call__(self, model, x, target, *, rng=None, create_graph=False):
        return rng.uniform(x)

    maps = __call__


@pytest.fixture
def network():
    torch.manual_seed(2)
    pooled = Pooled()
    with torch.no_grad():  # no class is preferred, so that little decides
        pooled.head.bias -= pooled(torch.rand(50, 2, 6, 7)).mean(0)
    return pooled


@pytest.fixture
def images(generator, network):
    x = torch.rand(9, 2, 6, 7, generator=generator)
    y = predict(network, x)
    y[:2] = (y[:2] + 1) % 3  # a clean prediction need not be right
    return x, y


def test_under_attack_tau_and_kept_are_those_of_the_protocol(network, images):
    x, y = images
    attack = AAI(interpreter=CAM(), eps=0.3, steps=8, step_size=0.1)
    found = stability_under_attack(network, CAM(), x, y, attack, rng=Stream(4))
    changed = attack(network, x, y, rng=Stream(4))
    torch.testing.assert_close(found.adversarial, changed)
    before, after = CAM()(network, x, y), CAM()(network, changed, y)
    with torch.no_grad():
        same = network(x).argmax(1) == network(changed).argmax(1)
    assert torch.equal(found.kept, same)
    assert 0 < int(same.sum()) < 9
    for n in range(9):
        tau = stats.kendalltau(before[n].flatten(), after[n].flatten()).statistic
        assert float(found.tau[n]) == pytest.approx(tau, abs=1e-12)
    assert found.stability == stability(found.tau, found.kept)
    assert found.stability.kept == int(same.sum())
    assert found.stability.tau.value == pytest.approx(float(found.tau[same].mean()))


def test_more_attack_leaves_less_of_the_map(network, images):
    x, y = images
    taus = [
        float(stability_under_attack(network, CAM(), x, y, AAI(interpreter=CAM(), eps=eps, steps=8)).tau.mean())
        for eps in (0.0, 0.03, 0.3)
    ]
    assert taus[0] == 1
    assert taus[0] > taus[1] > taus[2]


def test_reduce_says_what_of_channels_is_compared(network, images):
    x, y = images
    attack = PGD(eps=0.1, steps=2, step_size=0.1, random_start=False)
    changed = attack(network, x, y)
    before, after = Gradient()(network, x, y), Gradient()(network, changed, y)
    raw = stability_under_attack(network, Gradient(), x, y, attack)
    torch.testing.assert_close(raw.tau, kendall_tau(before, after))
    summed = stability_under_attack(network, Gradient(), x, y, attack, reduce="abs_sum")
    torch.testing.assert_close(summed.tau, kendall_tau(before.abs().sum(1), after.abs().sum(1)))
    assert float((summed.tau - raw.tau).abs().max()) > 0.05
    cam = [stability_under_attack(network, CAM(), x, y, attack, reduce=r).tau for r in ("none", "abs_sum")]
    assert torch.equal(*cam)  # maps without channels stay signed


@pytest.mark.parametrize("batch_size", [1, 4])
def test_neither_depends_on_the_batch(network, images, batch_size):
    x, y = images
    attack = AAI(interpreter=CAM(), eps=0.1, steps=3, step_size=0.05)
    for measure in (
        lambda size: stability_under_attack(network, CAM(), x, y, attack, rng=Stream(1), batch_size=size),
        lambda size: stability_under_noise(network, CAM(), x, y, samples=3, rng=Stream(1), batch_size=size),
    ):
        whole, parts = measure(100), measure(batch_size)
        torch.testing.assert_close(parts.tau, whole.tau, rtol=0, atol=0.01)
        assert torch.equal(parts.kept, whole.kept)


def test_noise_is_a_share_of_the_images_own_range(images):
    seen = []

    class Watch:
        def __call__(self, model, x, target, *, rng=None, create_graph=False):
            seen.append(x)
            return x

    x = 0.4 + torch.zeros(400, 1, 6, 6)
    x[:200, :, :3] += 0.2
    x[200:, :, :3] += 0.01
    stability_under_noise(nn.Flatten(), Watch(), x, torch.zeros(400, dtype=torch.int64), samples=2, batch_size=400)
    clean, first, second = seen
    assert torch.equal(clean, x)
    assert float((first - x)[:200].std()) == pytest.approx(0.02, rel=0.05)
    assert float((first - x)[200:].std()) == pytest.approx(0.001, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([first - x, second - x]).flatten(1))[0, 1])) < 0.05


def test_noisy_images_stay_images(network):
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 2, 6, 7).clone()
    x[:, :, 2] = 0.5

    class Check(Drawn):
        def __call__(self, model, x, target, *, rng=None, create_graph=False):
            assert 0 <= float(x.min()) <= float(x.max()) <= 1
            return x

    stability_under_noise(network, Check(), x, torch.tensor([0, 1]), noise_level=3.0, samples=4)


def test_the_summary_under_noise_takes_each_image_by_its_mean_over_kept_samples(network, images):
    x, y = images
    found = stability_under_noise(network, Gradient(), x, y, noise_level=0.4, samples=6)
    assert 0 < int(found.kept.sum()) < found.kept.numel()
    means = [float(t[k].mean()) for t, k in zip(found.tau, found.kept) if bool(k.any())]
    assert found.stability.kept == len(means)
    assert found.stability.tau.value == pytest.approx(sum(means) / len(means))


def test_more_noise_leaves_less_of_the_map(network, images):
    found = [stability_under_noise(network, Gradient(), *images, noise_level=s).tau.mean() for s in (0.0, 0.1, 0.5)]
    assert float(found[0]) == 1
    assert found[0] > found[1] > found[2]


def test_what_an_interpreter_draws_is_no_instability(network, images):
    x, y = images
    assert torch.equal(stability_under_noise(network, Drawn(), x, y, samples=2).tau, torch.ones(9, 2).double())
    under = stability_under_attack(network, Drawn(), x, y, FGSM(eps=0.1), batch_size=4)
    assert torch.equal(under.tau, torch.ones(9).double())


def test_nobody_kept_constant_maps_and_empty_batches(images):
    x, y = images

    class Constant(Drawn):
        def __call__(self, model, x, target, *, rng=None, create_graph=False):
            return torch.zeros(len(x), 2, 2)

    class Away(Drawn):
        def __call__(self, model, x, y, *, target=None, rng=None, stop_when_fooled=False):
            return x.flip(1, 2, 3)

    flat = nn.Flatten()
    found = stability_under_attack(flat, Drawn(), x, predict(flat, x), Away())
    assert not found.kept.any()
    assert math.isnan(found.stability.tau.value)
    silent = stability_under_attack(flat, Constant(), x, y, FGSM(eps=0.0))
    assert bool(silent.tau.isnan().all())
    assert (silent.stability.kept, silent.stability.undefined) == (0, 9)
    silent = stability_under_noise(flat, Constant(), x, y, noise_level=0.0, samples=2)
    assert (silent.stability.kept, silent.stability.undefined) == (0, 9)
    assert stability_under_noise(flat, Drawn(), x[:0], y[:0]).tau.shape == (0, 10)
    assert stability_under_attack(flat, Drawn(), x[:0], y[:0], FGSM(eps=0.1)).tau.shape == (0,)


def test_the_network_is_left_as_it_was(network, images):
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    stability_under_noise(network, Gradient(), *images, samples=1)
    stability_under_attack(network, Gradient(), *images, FGSM(eps=0.1))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_what_is_refused(network, images):
    x, y = images
    for wrong, words in (
        ({"noise_level": -0.1}, "noise_level"),
        ({"noise_level": math.nan}, "noise_level"),
        ({"samples": 0}, "samples"),
        ({"reduce": "mean"}, "reduce must be one of"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(InputError, match=words):
            stability_under_noise(network, Gradient(), x, y, **wrong)
    with pytest.raises(InputError, match="reduce must be one of"):
        stability_under_attack(network, Gradient(), x, y, FGSM(eps=0.1), reduce="sum")
    for bad_x, bad_y, words in ((x * 2, y, r"\[0, 1\]"), (x, y[:3], "one number per image")):
        with pytest.raises(InputError, match=words):
            stability_under_noise(network, Gradient(), bad_x, bad_y)
        with pytest.raises(InputError, match=words):
            stability_under_attack(network, Gradient(), bad_x, bad_y, FGSM(eps=0.1))
