"""The command line in this process, a small trained network, and a place of its own for every test."""

import json
import os

import pytest
import torch

from pellucid.cli import main

SMALL = ("--data", "digits", "data.train=60", "data.validation=20", "data.test=20")
TRAIN = (
    "train", *SMALL, "--model", "small_cnn", "model.filters=3,4,5", "--steps", "40",
    "--batch-size", "20", "optimiser.lr=1e-2",
)  # fmt: skip


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Small batches are slower with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Work in an empty folder, without data sets and without the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("PELLUCID_DATA", "PELLUCID_STORE"):
        monkeypatch.setenv(name, "")
    return tmp_path


@pytest.fixture(scope="package")
def trained(tmp_path_factory, one_thread):
    """The folder of a small network."""
    folder = tmp_path_factory.mktemp("trained")
    assert main([*TRAIN, "--store", str(folder / "store"), "--out", str(folder / "net"), "--quiet"]) == 0
    return folder / "net"


class Spoken:
    """What a command said."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        """Read the whole output as JSON as the standard has it, without NaN."""

        def refuse(word):
            raise AssertionError(f"{word} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def say(capsys):
    """Run a command."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Spoken(code, out, err)

    return run


def listing(folder):
    """Return what lies in a folder, but for the byte code of a network's module that was imported from it."""
    return sorted(name for name in os.listdir(folder) if name != "__pycache__")


@pytest.fixture
def refused(say, place):
    """Run a command that has to be refused: exit code 2, one sentence, nothing written."""

    def run(*words):
        before = listing(place)
        spoken = say(*words)
        assert spoken.code == 2, spoken.out
        assert spoken.out == ""
        *progress, sentence = spoken.err.splitlines()
        assert all(line.split()[0] in ("start", "done") or "tasks, 0 of them done" in line for line in progress)
        assert sentence.startswith("pellucid: ")
        assert listing(place) == before
        return sentence

    return run
