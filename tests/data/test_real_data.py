"""The real sets, where a folder of them is named by PELLUCID_DATA."""

import os
from pathlib import Path

import pytest
import torch

from pellucid.data import CIFAR10, MNIST, SVHN, Folder, StyleImages, SVHNRoss

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


def test_svhn_ross():
    needs("svhn")
    split = SVHNRoss(grey="luma", test=100).load("test")
    plain = SVHN().load("test")
    assert split.labels.equal(plain.labels[:100])
    rgb = plain.pixels[:100].double()
    grey = 0.2989 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]
    wanted = (grey - grey.mean((1, 2), keepdim=True)) / grey.flatten(1).std(1)[:, None, None]
    assert (split.pixels[:, 0] - wanted).abs().max() < 1e-4
    low, high = split.value_range
    assert low < -3
    assert high > 3


def test_style_paintings():
    needs("style_paintings")
    split = StyleImages(path=str(Path(os.environ["PELLUCID_DATA"]) / "style_paintings")).load("train")
    assert split.shape == (3, 224, 224)
    assert (len(split), split.skipped) == (12, ())


def test_tiny_imagenet_at_224():
    needs("tiny_imagenet_20")
    folder = str(Path(os.environ["PELLUCID_DATA"]) / "tiny_imagenet_20")
    small = Folder(path=folder, size=(64, 64), unreadable="skip").load("test")
    large = Folder(path=folder, size=(224, 224)).load("test")
    assert (len(small), small.skipped) == (1000, ())
    again = torch.nn.functional.interpolate(small.images(slice(4)), size=(224, 224), mode="bilinear")
    assert (large.images(slice(4)) - again).abs().max() < 0.01
