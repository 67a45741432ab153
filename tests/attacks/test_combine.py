import dataclasses

import pytest
import torch
from torch import nn

from pellucid.attacks import (
    FGSM,
    JSMA,
    PGD,
    TGSM,
    FrankWolfeL1,
    IteratedFGSM,
    Restarts,
    Worst,
    has_eps,
    with_eps,
)
from pellucid.errors import InputError, SpecError
from pellucid.maths import counted, cross_entropy
from pellucid.maths.notes import noted
from pellucid.metrics import accuracy_curve, predict
from pellucid.rng import Stream
from pellucid.spec import brief, digest, from_dict, to_dict

N = 24


@pytest.fixture
def images(generator):
    return torch.rand(N, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def rough(generator):
    """A network with many local maxima."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 4))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (6 / p.shape[-1] ** 0.5 if p.ndim == 2 else 1))
    return network.double()


MEMBERS = (
    FGSM(eps=0.02),
    PGD(eps=0.04, steps=3),
    PGD(norm="l2", eps=0.1, steps=3),
    FrankWolfeL1(eps=0.3, steps=3),
)


def everything(attacks, network, x, y, leave, target=None):
    """What each attack gives for every image, whether that succeeds, and its loss."""
    made, values, fooled = [], [], []
    for number, attack in enumerate(attacks):
        stream = Stream(5).child("attack", number) if number else Stream(5)
        made.append(attack(network, x, y, target=target, rng=stream, stop_when_fooled=leave))
        with torch.no_grad():
            logits = network(made[-1])
        values.append(cross_entropy(logits, y) if target is None else -cross_entropy(logits, target))
        fooled.append(logits.argmax(1) != y if target is None else logits.argmax(1) == target)
    return torch.stack(made), torch.stack(values), torch.stack(fooled)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("leave", [False, True])
def test_it_is_running_all_and_choosing(rough, images, leave, targeted):
    y = predict(rough, images)
    target = (y + 1) % 4 if targeted else None
    made, values, fooled = everything(MEMBERS, rough, images, y, leave, target)
    expected, first = [], []
    for n in range(N):
        successes = [k for k in range(len(MEMBERS)) if fooled[k, n]]
        among = successes[:1] if leave and successes else successes or range(len(MEMBERS))
        expected.append(made[max(among, key=lambda k: float(values[k, n])), n])
        first.append(successes[0] if successes else -1)
    assert len(set(first)) >= 3  # some stay as they are, and not all are fooled by the same attack
    with noted() as notes:
        found = Worst(attacks=MEMBERS)(rough, images, y, target=target, rng=Stream(5), stop_when_fooled=leave)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)
    assert torch.equal(notes["fooled_by"] >= 0, fooled.any(0))
    if leave:
        assert notes["fooled_by"].tolist() == first


def test_only_survivors_are_attacked(rough, images):
    y = predict(rough, images)
    _, _, fooled = everything(MEMBERS, rough, images, y, True)
    spent = []
    for number, attack in enumerate(MEMBERS):
        left = (~fooled[:number].any(0)).nonzero()[:, 0]
        stream = (Stream(5).child("attack", number) if number else Stream(5)).take(left)
        with counted() as passes:
            attack(rough, images[left], y[left], rng=stream, stop_when_fooled=True)
        spent.append((passes.backward, len(left)))
    assert [n for _, n in spent] == sorted((n for _, n in spent), reverse=True)
    assert 0 < spent[-1][1] < spent[0][1] == N
    worst, calls = Worst(attacks=MEMBERS), []
    hooked = rough.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    with counted() as passes:
        worst(rough, images, y, rng=Stream(5), stop_when_fooled=True)
    hooked.remove()
    assert passes.backward == sum(backward for backward, _ in spent)
    assert sum(calls) == sum(backward + n for backward, n in spent)  # one forward more to judge whom each was handed
    with counted() as passes:
        worst(rough, images, y, rng=Stream(5))
    assert passes.backward == N * (1 + 3 + 3 + 3)


def test_nobody_is_attacked_once_all_are_fooled(rough, images):
    class Never(FGSM):
        def __call__(self, *args, **more):
            raise AssertionError("nobody was left to attack")

    y = (predict(rough, images) + 1) % 4
    attacks = (FGSM(eps=0.0), Never(eps=0.1))
    out = Worst(attacks=attacks)(rough, images, y, stop_when_fooled=True)
    assert torch.equal(out, images)
    with pytest.raises(AssertionError, match="nobody"):
        Worst(attacks=attacks)(rough, images, y)


@pytest.mark.parametrize("leave", [False, True])
def test_an_image_alone_is_as_in_the_batch(rough, images, leave):
    y = predict(rough, images)
    for attack in (Worst(attacks=MEMBERS), Restarts(inner=PGD(eps=0.05, steps=2), times=3)):
        together = attack(rough, images, y, rng=Stream(4), stop_when_fooled=leave)
        for n in (0, 7, 23):
            row = torch.tensor([n])
            alone = attack(rough, images[row], y[row], rng=Stream(4).take(row), stop_when_fooled=leave)
            torch.testing.assert_close(alone, together[row], rtol=0, atol=1e-9)


def test_the_first_runs_as_if_it_were_alone(rough, images):
    y, attack = predict(rough, images), PGD(eps=0.05, steps=2, target="random")
    alone = attack(rough, images, y, rng=Stream(3))
    assert torch.equal(Restarts(inner=attack, times=1)(rough, images, y, rng=Stream(3)), alone)
    assert torch.equal(Worst(attacks=(attack,))(rough, images, y, rng=Stream(3)), alone)


@pytest.mark.parametrize("leave", [False, True])
def test_more_runs_are_never_worse_and_sometimes_better(rough, images, leave):
    y = predict(rough, images)
    losses, fooled = [], []
    for times in (1, 2, 6):
        attack = Restarts(inner=PGD(eps=0.05, steps=2), times=times)
        with torch.no_grad():
            logits = rough(attack(rough, images, y, rng=Stream(1), stop_when_fooled=leave))
        losses.append(cross_entropy(logits, y))
        fooled.append(logits.argmax(1) != y)
    for fewer, more in ((0, 1), (1, 2)):
        assert bool((fooled[more] | ~fooled[fewer]).all())
        same = fooled[more] == fooled[fewer]
        assert bool((losses[more] >= losses[fewer] - 1e-12)[same].all())
    assert bool((losses[2] > losses[0] + 1e-3).any())


def test_runs_draw_numbers_of_their_own(images):
    starts = []

    def objective(x, rows):
        starts.append(x.detach().clone())
        return x.flatten(1).sum(1)

    Restarts(inner=PGD(eps=0.1, steps=1), times=3).maximise(objective, images)
    starts = starts[0::2]  # of each run: the start, then the end, to judge it
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])
    Worst(attacks=(PGD(eps=0.1, steps=1), PGD(eps=0.1, steps=1))).maximise(objective, images)
    assert not torch.equal(starts[-1], starts[-2])


def test_maximise_keeps_the_highest_value_of_each_image(images):
    def waves(x, rows):
        return torch.sin(40 * x).flatten(1).sum(1) + rows * 0.1

    attacks = (PGD(eps=0.1, steps=10), IteratedFGSM(eps=0.01, steps=4), FrankWolfeL1(eps=1.0, steps=3))
    results = [
        attack.maximise(waves, images, rng=Stream(2).child("attack", k) if k else Stream(2))
        for k, attack in enumerate(attacks)
    ]
    values = torch.stack([waves(x, torch.arange(N)) for x in results])
    assert len(set(values.argmax(0).tolist())) > 1
    found = Worst(attacks=attacks).maximise(waves, images, rng=Stream(2))
    assert torch.equal(found, torch.stack(results)[values.argmax(0), torch.arange(N)])
    assert Worst(attacks=attacks).maximise(waves, images[:0]).shape == (0, 1, 3, 4)
    with pytest.raises(InputError):
        Worst(attacks=(JSMA(), *attacks)).maximise(waves, images)


def test_targets_are_chosen_once_if_all_agree_on_a_rule(rough, images):
    y = predict(rough, images)
    agreed = Worst(attacks=(TGSM(eps=0.03, target="random"), PGD(eps=0.05, steps=3, target="random")))
    assert agreed.target == "random"
    seen = []

    class Spy(FGSM):
        def __call__(self, model, x, y, *, target=None, rng=None, stop_when_fooled=False):
            seen.append(target)
            return super().__call__(model, x, y, target=target, rng=rng, stop_when_fooled=stop_when_fooled)

    Worst(attacks=(Spy(eps=0.1, target="random"), Spy(eps=0.2, target="random")))(rough, images, y)
    assert torch.equal(seen[0], seen[1])
    assert bool((seen[0] != y).all())
    Restarts(inner=Spy(eps=0.1, target="random"), times=2)(rough, images, y)
    assert torch.equal(seen[2], seen[0])
    assert torch.equal(seen[3], seen[0])
    mixed = Worst(attacks=(Spy(eps=0.1, target="next"), Spy(eps=0.2)))
    assert mixed.target is None
    mixed(rough, images, y)
    assert seen[4:] == [None, None]  # each follows its own rule
    given = (y + 2) % 4
    mixed(rough, images, y, target=given)
    assert torch.equal(seen[6], given)
    assert torch.equal(seen[7], given)


def test_eps_moves_every_attack_that_has_one(rough, images):
    worst = Worst(attacks=(*MEMBERS, JSMA(), Restarts(inner=FGSM(eps=0.1))))
    moved = with_eps(worst, 0.5)
    assert [attack.eps for attack in moved.attacks[:4]] == [0.5] * 4
    assert moved.attacks[4] == JSMA()
    assert moved.attacks[5].inner == FGSM(eps=0.5)
    restarts = Restarts(inner=PGD(eps=0.1), times=4)
    assert has_eps(restarts)
    assert with_eps(restarts, 0.3) == Restarts(inner=PGD(eps=0.3), times=4)
    with pytest.raises(SpecError, match="eps"):
        with_eps(Restarts(inner=JSMA()), 0.1)
    with pytest.raises(SpecError, match="eps"):
        with_eps(Worst(attacks=(JSMA(),)), 0.1)
    y = predict(rough, images)
    curve = accuracy_curve(rough, images, y, Worst(attacks=MEMBERS[:2]), [0.0, 0.02, 0.1])
    assert (curve == y).sum(1).tolist() == sorted((curve == y).sum(1).tolist(), reverse=True)
    assert int((curve[2] == y).sum()) < int((curve[0] == y).sum())


def test_as_a_description():
    worst = Worst(attacks=(FGSM(eps=0.1), PGD(eps=0.1)))
    assert from_dict(to_dict(worst)) == worst
    assert digest(worst) != digest(Worst(attacks=worst.attacks[::-1]))
    assert brief(worst) == "worst attacks=(fgsm eps=0.1, pgd eps=0.1)"
    assert Worst(attacks=[{"attack": "fgsm", "eps": 0.1}, "deepfool"]).attacks[0] == FGSM(eps=0.1)
    assert Restarts(inner={"attack": "fgsm", "eps": 0.1}).inner == FGSM(eps=0.1)
    with pytest.raises(SpecError, match="at least one"):
        Worst(attacks=())
    aai = {"attack": "aai", "eps": 0.1, "step_size": 0.01, "interpreter": "gradient"}
    with pytest.raises(SpecError, match="does not aim"):
        Worst(attacks=(FGSM(eps=0.1), aai))
    with pytest.raises(SpecError, match="does not aim"):
        Restarts(inner=aai)


def test_members_notes_about_some_images_do_not_leak(rough, images):
    y = predict(rough, images)
    with noted() as notes:
        Worst(attacks=(PGD(eps=0.05, steps=2), JSMA()))(rough, images, y, stop_when_fooled=True)
    assert set(notes) == {"fooled_by"}
    assert notes["fooled_by"].shape == (N,)


def test_the_network_is_frozen_throughout(rough, images):
    y = predict(rough, images)
    flags = []
    hooked = rough.register_forward_pre_hook(lambda m, _: flags.append((m.training, m[1].weight.requires_grad)))
    rough.train()
    Worst(attacks=(FGSM(eps=0.1), PGD(eps=0.1, steps=2)))(rough, images, y)
    hooked.remove()
    assert set(flags) == {(False, False)}
    assert rough.training
    assert rough[1].weight.requires_grad
    assert dataclasses.is_dataclass(Worst)


def test_what_a_member_warns_of_is_passed_on():
    """A network without a gradient: AutoAttack says so, and so does whoever is made of it."""
    from pellucid.attacks import AutoAttack, RobustnessWarning

    class Rounded(nn.Module):
        def forward(self, x):
            return (8 * x).round().flatten(1)[:, :3] + 0 * x.sum()

    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = Rounded()(x).argmax(1)
    inner = AutoAttack(eps=0.05, steps=2, queries=5)
    for attack in (Worst(attacks=(inner,)), Restarts(inner=inner, times=2)):
        with noted() as notes:
            attack(Rounded(), x, y)
        assert notes["zero_gradient"].tolist() == [True] * 3
        with pytest.warns(RobustnessWarning, match="zero_gradient, 3 of 3"):
            attack(Rounded(), x, y)
