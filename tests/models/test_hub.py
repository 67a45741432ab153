"""Uploading and downloading, with a stand-in for the hub that is called as the real client is."""

import fnmatch
import functools
import inspect
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from torch import nn

from pellucid.errors import CheckpointError
from pellucid.models import SmallCNN, load_classifier, load_from_hub, push_to_hub, save_classifier
from pellucid.models.card import CARD, README, markdown
from pellucid.models.checkpoint import CONFIG, WEIGHTS
from pellucid.models.hub import parse
from pellucid.rng import global_seed

from .test_card import code, front, make

SPEC = SmallCNN(filters=(2, 3, 4))
IMAGES = torch.linspace(0, 1, 2 * 8 * 6).view(2, 1, 8, 6)


def as_real(real):
    """Refuse calls that the real client's signature would not take."""

    def wrap(fake):
        @functools.wraps(fake)
        def call(*args, **given):
            inspect.signature(real).bind(*args, **given)
            return fake(*args, **given)

        return call

    return wrap


class Hub:
    """Repositories as folders: <root>/<owner>/<name>/<revision>; `snapshot_download` copies into a cache."""

    def __init__(self, root):
        self.root = root
        self.public, self.tokens, self.messages, self.fetched = {}, [], [], []

    def place(self, repo, revision=None):
        return self.root / repo / (revision or "main")

    def client(self):
        hub, real = self, huggingface_hub.HfApi

        class HfApi:
            @as_real(real.__init__)
            def __init__(self, endpoint=None, token=None):
                hub.tokens.append(token)

            @as_real(real.create_repo)
            def create_repo(self, repo_id, *, private=None, exist_ok=False):
                assert exist_ok or repo_id not in hub.public
                hub.public.setdefault(repo_id, not private)

            @as_real(real.repo_info)
            def repo_info(self, repo_id):
                return SimpleNamespace(private=not hub.public[repo_id])

            @as_real(real.create_branch)
            def create_branch(self, repo_id, *, branch, exist_ok=False):
                hub.place(repo_id, branch).mkdir(parents=True, exist_ok=exist_ok)

            @as_real(real.create_commit)
            def create_commit(self, repo_id, operations, *, commit_message, revision=None):
                assert repo_id in hub.public
                if revision is not None:
                    assert hub.place(repo_id, revision).is_dir()
                hub.messages.append(commit_message)
                for operation in operations:
                    target = hub.place(repo_id, revision) / operation.path_in_repo
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with operation.as_file() as file:
                        target.write_bytes(file.read())

        return HfApi

    def download(self, repo_id, *, revision=None, cache_dir=None, allow_patterns=None):
        if not self.place(repo_id, revision).is_dir():
            raise FileNotFoundError("404 with a long\nexplanation")
        snapshot = (cache_dir or self.root / "cache") / repo_id.replace("/", "--") / (revision or "main")
        shutil.rmtree(snapshot, ignore_errors=True)
        snapshot.mkdir(parents=True)
        for path in self.place(repo_id, revision).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                self.fetched.append(path.name)
                shutil.copyfile(path, snapshot / path.name)
        return str(snapshot)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.client())
    download = as_real(huggingface_hub.snapshot_download)(hub.download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return hub


@pytest.fixture
def network():
    with global_seed(3):
        return SPEC.build(1, (8, 6), 3).eval()


@pytest.fixture
def folder(tmp_path, network):
    folder = tmp_path / "net"
    folder.mkdir()
    save_classifier(folder, network, SPEC, (1, 8, 6), ("a", "b", "c"))
    (folder / CARD).write_text(json.dumps(make(), indent=1) + "\n")
    (folder / README).write_text(markdown(make()))
    (folder / "history.json").write_text("[]")
    (folder / "meta.json").write_text("{}")
    return folder


# --------------------------------------------------------------------------------------------------------- there


def test_there_and_back(hub, folder, network):
    address = push_to_hub(folder, "owner/name", message="robust", token="secret")
    assert address == "hf://owner/name"
    for loaded in (load_from_hub("owner/name"), load_classifier(address)):
        assert not loaded.training
        assert torch.equal(loaded(IMAGES), network(IMAGES))
    assert hub.messages == ["robust"]
    assert hub.tokens == ["secret"]


def test_only_the_files_of_a_network_are_uploaded(hub, folder):
    torch.save({}, folder / "other.pt")
    push_to_hub(folder, "owner/name")
    names = {path.name for path in hub.place("owner/name").iterdir()}
    assert names == {WEIGHTS, CONFIG, CARD, README, "history.json"}


def test_a_checkpoint_without_card_and_history_is_uploaded_as_it_is(hub, folder):
    for name in (CARD, README, "history.json"):
        (folder / name).unlink()
    push_to_hub(folder, "owner/name")
    assert {path.name for path in hub.place("owner/name").iterdir()} == {WEIGHTS, CONFIG}


def test_the_uploaded_card_loads_from_the_hub_and_the_folder_is_left_alone(hub, folder, network):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    push_to_hub(folder, "owner/name", revision="v1", licence="mit")
    text = (hub.place("owner/name", "v1") / README).read_text()
    assert 'net = load_classifier("hf://owner/name@v1")' in text.splitlines()
    assert front(text)[0]["license"] == "mit"
    there = json.loads((hub.place("owner/name", "v1") / CARD).read_text())
    assert there == make() | {"address": "hf://owner/name@v1", "licence": "mit"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    names = {}
    exec(code(text), names)
    assert torch.equal(names["net"](IMAGES), network(IMAGES))


def test_an_edited_card_is_uploaded_as_people_wrote_it(hub, folder):
    (folder / README).write_text("our own words")
    push_to_hub(folder, "owner/name")
    assert (hub.place("owner/name") / README).read_text() == "our own words"
    with pytest.raises(CheckpointError, match=r"write the licence into README\.md yourself"):
        push_to_hub(folder, "owner/name", licence="mit")


def test_somebody_elses_card(hub, folder):
    (folder / CARD).write_text("[1]")
    push_to_hub(folder, "owner/name")
    assert (hub.place("owner/name") / CARD).read_text() == "[1]"
    (folder / CARD).write_text("{")
    with pytest.raises(CheckpointError, match=r"card\.json is corrupt"):
        push_to_hub(folder, "owner/name")


@pytest.mark.parametrize("private", [True, False])
def test_private(hub, folder, private):
    push_to_hub(folder, "owner/name", private=private)
    assert hub.public == {"owner/name": not private}


def test_what_is_to_be_private_does_not_go_into_a_public_repository(hub, folder):
    push_to_hub(folder, "owner/name")
    shutil.rmtree(hub.place("owner/name"))
    with pytest.raises(CheckpointError, match="owner/name is public: make it private on the hub first"):
        push_to_hub(folder, "owner/name", private=True)
    assert not hub.place("owner/name").exists()


def test_a_folder_that_is_no_checkpoint_is_not_uploaded(hub, folder):
    (folder / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        push_to_hub(folder, "owner/name")
    torch.save({}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="is a pickle"):
        push_to_hub(folder, "owner/name")
    assert hub.public == {}


def test_a_failed_upload_says_what_to_look_at(hub, folder, monkeypatch):
    def fail(self, *_, **__):
        raise ConnectionError("no route to host, token hf_secret")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", fail)
    with pytest.raises(CheckpointError) as caught:
        push_to_hub(folder, "owner/name")
    assert str(caught.value) == (
        "hf://owner/name could not be uploaded (ConnectionError): see that the name and the revision are right, that "
        "the hub can be reached, and that you are logged in (hf auth login) if it is private or yours to write"
    )


# ---------------------------------------------------------------------------------------------------------- back


def test_revisions_are_different_networks(hub, folder, network):
    push_to_hub(folder, "owner/name", revision="v1")
    with global_seed(4):
        other = SPEC.build(1, (8, 6), 3).eval()
    save_classifier(folder, other, SPEC, (1, 8, 6), ("a", "b", "c"))
    push_to_hub(folder, "owner/name")
    assert not torch.equal(other(IMAGES), network(IMAGES))
    assert torch.equal(load_classifier("hf://owner/name@v1")(IMAGES), network(IMAGES))
    assert torch.equal(load_from_hub("owner/name", revision="v1")(IMAGES), network(IMAGES))
    assert torch.equal(load_classifier("hf://owner/name")(IMAGES), other(IMAGES))


def test_files_are_kept_where_it_is_said(hub, folder, tmp_path):
    push_to_hub(folder, "owner/name")
    load_from_hub("owner/name", cache=tmp_path / "kept")
    assert len(list((tmp_path / "kept").rglob(WEIGHTS))) == 1


def test_pickled_weights_are_neither_fetched_nor_read(hub, folder, network):
    push_to_hub(folder, "owner/name")
    there = hub.place("owner/name")
    torch.save(network.state_dict(), there / "pytorch_model.bin")
    load_from_hub("owner/name")
    assert "pytorch_model.bin" not in hub.fetched
    (there / WEIGHTS).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_from_hub("owner/name")
    assert str(caught.value) == (
        "hf://owner/name has no model.safetensors; pickled weights (.bin, .pt, .pth), which can run code when read, "
        "are not read"
    )
    torch.save(network.state_dict(), there / WEIGHTS)
    with pytest.raises(CheckpointError, match="is a pickle"):
        load_from_hub("owner/name")
    assert "pytorch_model.bin" not in hub.fetched


def test_a_repository_without_config(hub, folder):
    push_to_hub(folder, "owner/name")
    (hub.place("owner/name") / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"^hf://owner/name has no config\.json, so the network cannot be built$"):
        load_classifier("hf://owner/name")


@pytest.mark.parametrize("config", [{"architectures": ["ViT"]}, [], {"model": {}, "shape": []}])
def test_a_repository_of_another_library(hub, folder, config):
    push_to_hub(folder, "owner/name")
    (hub.place("owner/name") / CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"^hf://owner/name was not made by Pellucid: its config"):
        load_classifier("hf://owner/name")


def test_a_damaged_config(hub, folder):
    push_to_hub(folder, "owner/name")
    (hub.place("owner/name") / CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is corrupt"):
        load_classifier("hf://owner/name")


def test_a_repository_that_is_not_there(hub):
    with pytest.raises(CheckpointError, match=r"^hf://owner/none could not be read \(FileNotFoundError\): see that"):
        load_classifier("hf://owner/none")


# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("hf://owner/name", ("owner/name", None)),
        ("hf:/owner/name@v1", ("owner/name", "v1")),  # what pathlib makes of it
        ("hf://My-Org/net.v2_x@refs/pr/3", ("My-Org/net.v2_x", "refs/pr/3")),
        ("hf://o/n@v1.0+cpu", ("o/n", "v1.0+cpu")),
    ],
)
def test_addresses(address, parts):
    assert parse(address) == parts


@pytest.mark.parametrize(
    "repo",
    [
        "", "name", "a/b/c", "/name", "owner/", "owner/na me", "../../etc", "owner/..", "a--b/c", "o/n.git", "-o/n",
        "o/n-", "datasets/o/n", "o/" + 95 * "n", "o/n\n", "hf://o/n", "hf:///o/n", "é/n", ".o/n",
    ],
)  # fmt: skip
def test_names_that_are_no_repository(hub, folder, repo):
    for call in (load_from_hub, lambda repo: push_to_hub(folder, repo)):
        with pytest.raises(CheckpointError, match="is not a repository of the hub: write owner/name"):
            call(repo)
    assert hub.public == {}
    assert hub.fetched == []


def test_the_client_agrees_about_names():
    for repo in ("My-Org/net.v2_x", "o/n", "1/2", "o/" + 94 * "n"):
        huggingface_hub.utils.validate_repo_id(repo)
        assert parse(f"hf://{repo}") == (repo, None)


@pytest.mark.parametrize("revision", ["", "../main", "a b", "-x", "v1\n", "a/../b", "/etc"])
def test_what_is_no_revision(hub, revision):
    with pytest.raises(CheckpointError, match="is not a revision of owner/name: write a branch, a tag or a commit"):
        load_from_hub("owner/name", revision=revision)
    with pytest.raises(CheckpointError, match="is not a revision of owner/name"):
        load_classifier(f"hf://owner/name@{revision}")


# ------------------------------------------------------------------------------------------------------ lateness


def test_the_client_is_imported_only_when_the_hub_is_asked(folder):
    program = (
        "import sys, pellucid, pellucid.models, pellucid.tasks, pellucid.tracking\n"
        "net = pellucid.models.load_classifier(sys.argv[1])\n"
        "assert 'huggingface_hub' not in sys.modules and 'tensorboard' not in sys.modules\n"
        "try:\n    pellucid.models.load_classifier('hf://no')\nexcept ValueError as error:\n    print(error)\n"
        "assert 'huggingface_hub' not in sys.modules\n"
    )
    words = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "'no' is not a repository of the hub: write owner/name, as in hf://owner/name\n"


def test_the_network_is_a_plain_module(hub, folder):
    push_to_hub(folder, "owner/name")
    assert isinstance(load_classifier("hf://owner/name"), nn.Module)
