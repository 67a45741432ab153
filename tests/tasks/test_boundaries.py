"""Distances to the boundary and Jacobians, image by image, against what they are by definition."""

import shutil
from dataclasses import replace

import pytest
import torch

from pellucid.attacks import DeepFool
from pellucid.errors import DataError
from pellucid.models import load_classifier
from pellucid.store import Store, read_tensors, write_tensors
from pellucid.tasks import run
from pellucid.tasks.boundaries import Boundaries
from pellucid.tasks.parquet import read_columns

from .conftest import DATA, FAST, SMALL, Journal, Killed

TASK = Boundaries(network=SMALL, data=DATA, images=12, chunk=5)
FILE = "boundaries.parquet"


@pytest.fixture(scope="module")
def found(filled):
    return read_columns(run(TASK, filled, FAST).folder / FILE)


@pytest.fixture(scope="module")
def moved(filled):
    network, x = load_classifier(filled.folder(SMALL)), DATA.load("test").images(slice(12))
    return network, x, DeepFool()(network, x, DATA.load("test").labels[:12])


def test_shares_are_lengths_of_what_deepfool_did(found, moved):
    network, x, changed = moved
    for row in range(12):
        length = x[row].double().square().sum().sqrt()
        assert found["length"][row] == pytest.approx(float(length), rel=1e-6)
        share = (changed[row] - x[row]).double().square().sum().sqrt() / length
        assert found["share"][row] == pytest.approx(float(share), rel=1e-3)
    assert torch.equal(found["before"], network(x).argmax(1))
    assert torch.equal(found["after"], network(changed).argmax(1))
    assert torch.equal(found["label"], DATA.load("test").labels[:12])
    assert torch.equal(found["index"], torch.arange(12))


def test_norms_are_those_of_the_whole_jacobian(found, moved):
    network, x, changed = moved
    for name, images in (("jacobian_clean", x), ("jacobian_perturbed", changed)):
        for row in range(12):
            whole = torch.func.jacrev(lambda image: network(image[None])[0])(images[row])  # (K, C, H, W)
            assert found[name][row] == pytest.approx(float(whole.detach().double().square().sum().sqrt()), rel=1e-3)


def test_a_boundary_is_reached_at_the_end_and_not_before(found, moved):
    network, x, changed = moved
    assert bool((found["before"] != found["after"]).all())
    almost = x + 0.9 * (changed - x)
    assert float((network(almost).argmax(1) == found["before"]).float().mean()) > 0.7


def test_what_was_made_before_a_kill_is_read_not_made_again(filled, tmp_path):
    shutil.copytree(filled.root, tmp_path / "store")
    store, task = Store(tmp_path / "store"), replace(TASK, chunk=4)
    with pytest.raises(Killed):
        run(task, store, FAST, Journal(die_at=(8, 12)))
    first = store.scratch(task) / "rows-0000000.safetensors"
    write_tensors(first, read_tensors(first) | {"share": torch.full((4,), 7.0, dtype=torch.float64)})
    again = read_columns(run(task, store, FAST).folder / FILE)
    whole = read_columns(run(replace(TASK, chunk=12), store, FAST).folder / FILE)
    assert bool((again["share"][:4] == 7).all())
    torch.testing.assert_close(again["share"][4:], whole["share"][4:], rtol=1e-3, atol=1e-6)


def test_images_without_labels_are_refused(filled, monkeypatch):
    split = replace(DATA.load("test"), labelled=False)
    monkeypatch.setattr(type(DATA), "load", lambda self, part: split)
    with pytest.raises(DataError, match="has no labels: boundaries"):
        run(replace(TASK, images=3), filled, FAST)
