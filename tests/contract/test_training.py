"""Every registered defence and every registered network trains, and goes on exactly where it was interrupted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.data.split import Split
from pellucid.defences import AdversarialTraining, DoubleBackprop
from pellucid.models.classifier import Classifier
from pellucid.optimisers import Adam
from pellucid.rng import global_seed
from pellucid.spec import lookup
from pellucid.train import Recipe, Run, fit

from .defence_checks import Teacher
from .tiny import cases, tiny
from .worlds import World, numbers

SIZE, CLASSES = (16, 16), 3


def split(n: int, channels: int) -> Split:
    """Return n images of three classes that can be told apart: which third of the image is bright."""
    labels = torch.arange(n) % CLASSES
    x = 0.4 * numbers(n, channels, *SIZE, seed=21, dtype=torch.float32)
    for label in range(CLASSES):
        x[labels == label, :, 5 * label : 5 * label + 5] += 0.5
    pixels = (255 * x).round().to(torch.uint8)
    return Split("thirds", "train", pixels, labels, ("a", "b", "c"), "made up", "all", "tests")


def built(model: Any, channels: int) -> Classifier:
    with global_seed(3):
        network: Classifier = model.build(channels, SIZE, CLASSES)
    return network


def trained(network: Classifier, defence: Any, channels: int, **more: Any) -> Run:
    data = split(48, channels)
    recipe = Recipe(networks=lambda task: Teacher(CLASSES))
    return fit(
        network, defence, Adam(lr=1e-3), data, data, batch_size=12, seed=4, recipe=recipe, **{"log_every": 5, **more}
    )


@pytest.mark.parametrize("model", ["small_cnn", "pool_cnn"])
@pytest.mark.parametrize("defence", cases("defence"))
def test_every_defence_trains(defence: Any, model: str, world: World) -> None:
    run = trained(built(tiny(lookup("model", model)), 1), defence, 1, steps=20)
    assert run.step == 20
    assert len(run.history) == 4


@pytest.mark.parametrize("defence", [AdversarialTraining(), DoubleBackprop(weight=0.1)], ids=["attack", "gradient"])
@pytest.mark.parametrize("model", cases("model"))
def test_every_network_trains(model: Any, defence: Any) -> None:
    network = built(model, 3)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    trained(network, defence, 3, steps=20)
    still = [name for name, p in network.named_parameters() if p.requires_grad and torch.equal(p, before[name])]
    assert not still, f"never moved: {still}"


class KilledError(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("defence", cases("defence"))
def test_every_defence_goes_on_exactly(defence: Any, tmp_path: Path) -> None:
    def weights(path: Path, kill: bool) -> dict[str, Tensor]:
        network = built(tiny(lookup("model", "small_cnn")), 1)
        given = {"steps": 6, "checkpoint": path, "checkpoint_seconds": 0.0, "log_every": 2}
        if kill:

            def stop(done: int, total: int, **_: float) -> None:
                if done == 3:
                    raise KilledError

            with pytest.raises(KilledError):
                trained(network, defence, 1, progress=stop, **given)
            network = built(tiny(lookup("model", "small_cnn")), 1)
        trained(network, defence, 1, **given)
        return network.state_dict()

    whole, resumed = weights(tmp_path / "whole", False), weights(tmp_path / "resumed", True)
    different = [name for name, value in whole.items() if not torch.equal(value, resumed[name])]
    assert not different, f"a resumed run must end with the same bits; different: {different}"
