"""The real sets, where a folder of them is named by PELLUCID_DATA."""

import os
from pathlib import Path

import pytest
import torch

from pellucid.data import CIFAR10, MNIST, SVHN

pytestmark = pytest.mark.real_data


def needs(name):
    folder = os.environ.get("PELLUCID_DATA")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip(f"PELLUCID_DATA names no folder that holds {name}")


def test_mnist():
    needs("mnist")
    parts = [MNIST().load(part) for part in ("train", "validation", "test")]
    assert [len(split) for split in parts] == [55_000, 5_000, 10_000]
    together = torch.cat([split.pixels for split in parts[:2]]).double() / 255
    assert abs(together.mean().item() - 0.13066) < 5e-6
    assert abs(together.std().item() - 0.30811) < 5e-6
    assert parts[2].labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert parts[0].shape == (1, 28, 28)


def test_cifar10():
    needs("cifar10")
    assert [len(CIFAR10().load(part)) for part in ("train", "validation", "test")] == [45_000, 5_000, 10_000]
    test = CIFAR10().load("test")
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.shape == (3, 32, 32)
    assert [test.classes[label] for label in test.labels[:3]] == ["cat", "ship", "ship"]


def test_svhn():
    needs("svhn")
    parts = [SVHN().load(part) for part in ("train", "validation", "test")]
    if "no train split" in parts[0].cut:
        assert len(parts[0]) + len(parts[1]) == 8001
        assert len(parts[2]) == 1999
        assert "images 8,001 to 9,999" in parts[2].cut
    assert parts[0].shape == (3, 32, 32)
