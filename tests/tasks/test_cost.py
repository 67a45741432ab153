"""What trying a little of a task says of the whole: passes, arithmetic and launches against counts by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pellucid.attacks import PGD
from pellucid.data import CIFAR10, MNIST, Blank, Caltech256, Digits, Drawn, Folder, SVHNRoss, set_data_root
from pellucid.errors import DataError
from pellucid.models import SmallCNN
from pellucid.store import Store
from pellucid.tasks import Evaluate, Options, Train
from pellucid.tasks.cost import Cost, Meter, tried
from pellucid.tasks.graph import blanked, rehearse

FAST = Options(device="cpu", threads=1)
NET = Train(data=MNIST(), model=SmallCNN(filters=(4, 6, 8)), steps=1000, batch_size=20)


def test_a_meter_counts_the_products_of_a_linear_layer_and_of_its_gradients():
    layer, x = nn.Linear(5, 3, bias=False), torch.randn(7, 5, requires_grad=True)
    with Meter() as meter:
        y = layer(x)
        forward = meter.cost()
        y.sum().backward()
    assert forward.flops == 2 * 7 * 5 * 3
    assert meter.cost().flops == 3 * forward.flops  # of x and of the weights
    assert meter.cost().launches > forward.launches > 0


def test_gradients_of_leaves_are_counted_as_attacks_take_them():
    network = SmallCNN(filters=(4, 6, 8)).build(1, (28, 28), 10)
    x, y = torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
    found = tried(lambda: PGD(eps=0.1, steps=3, random_start=False)(network, x, y))
    assert (found.forward, found.backward) == (6, 6)
    assert found.flops > 0 < found.seconds


def test_larger_batches_launch_less_for_the_same_arithmetic():
    once = Cost(1.0, 2.0, 3.0, 4.0, 5.0)
    assert once.times(10) == Cost(10, 20, 30, 40, 50)
    assert once.times(10, launches=2) == Cost(10, 20, 30, 40, 10)
    assert Cost(flops=1e13, launches=1e3).gpu_hours() == pytest.approx(1 / 3600)
    assert Cost(flops=1e9, launches=1e5).gpu_hours() == pytest.approx(1 / 3600)


@pytest.fixture
def nothing_here(tmp_path):
    set_data_root(tmp_path)
    yield Store(tmp_path / "store")
    set_data_root(None)


def test_a_task_is_planned_on_blank_images_where_its_own_are_not_here(nothing_here):
    training = rehearse(NET, nothing_here, FAST)
    assert training.forward == pytest.approx(1000 * 20)
    assert rehearse(replace(NET, steps=None, epochs=1), nothing_here, FAST).forward == pytest.approx(55_000)
    attacked = Evaluate(network=NET, data=Drawn(of=MNIST(), images=200), attack=PGD(eps=0.1, steps=4), chunk=50)
    found = rehearse(attacked, nothing_here, FAST)
    assert found.backward == pytest.approx(200 * 4)
    assert not nothing_here.root.exists()


def test_images_of_unknown_form_cannot_be_planned(nothing_here):
    assert rehearse(replace(NET, data=Folder(path="nowhere")), nothing_here, FAST) is None
    with pytest.raises(DataError, match="form is not known"):
        blanked(replace(NET, data=Folder(path="nowhere"))).data.load("train")


@pytest.mark.parametrize(
    ("data", "shape", "images"),
    [
        (CIFAR10(train=100), (3, 32, 32), 100),
        (Caltech256(crop=224), (3, 224, 224), 22_000),
        (SVHNRoss(), (1, 32, 32), 200_000),
    ],
)
def test_blank_images_have_the_form_of_the_set_and_take_no_room(data, shape, images):
    split = Blank(of=data).load("train")
    assert (split.shape, len(split)) == (shape, images)
    assert split.pixels.untyped_storage().nbytes() == torch.tensor(shape).prod()
    assert 0 <= float(split.images(slice(2)).min()) < float(split.images(slice(2)).max()) <= 1


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_blank_digits_are_as_many_as_digits(part):
    real, blank = Digits().load(part), Blank(of=Digits()).load(part)
    assert (len(blank), blank.shape, len(blank.classes)) == (len(real), real.shape, len(real.classes))
