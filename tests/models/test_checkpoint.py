import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pellucid.errors import CheckpointError, InputError
from pellucid.models import SmallCNN, load_classifier, read_weights, save_classifier
from pellucid.models.checkpoint import CONFIG, WEIGHTS, load_weights, load_with_config
from pellucid.rng import global_seed

SPEC = SmallCNN(filters=(2, 3, 4))
IMAGES = torch.linspace(0, 1, 2 * 8 * 6).view(2, 1, 8, 6)


@pytest.fixture
def network():
    with global_seed(3):
        return SPEC.build(1, (8, 6), 3)


@pytest.fixture
def folder(tmp_path, network):
    save_classifier(tmp_path, network, SPEC, (1, 8, 6), ("a", "b", "c"))
    return tmp_path


def test_what_was_saved_comes_back(folder, network):
    loaded, config = load_with_config(folder)
    assert not loaded.training
    assert torch.equal(loaded(IMAGES), network.eval()(IMAGES))
    assert config["classes"] == ["a", "b", "c"]
    assert config["shape"] == [1, 8, 6]
    assert config["model"] == {"model": "small_cnn", "filters": [2, 3, 4], "activation": "relu"}


def test_the_file_itself_may_be_named(folder, network):
    assert torch.equal(load_classifier(str(folder / WEIGHTS))(IMAGES), network.eval()(IMAGES))


def test_another_file_in_the_folder_is_not_taken_for_the_checkpoint(folder, network):
    other = folder / "other.safetensors"
    save_file(network.state_dict(), other)
    with pytest.raises(CheckpointError, match=r"other\.safetensors is not a checkpoint folder .*; name the folder"):
        load_classifier(other)


@pytest.mark.parametrize(("start", "length"), [(b"\x80", 60), (b"PK", 19_150)])
def test_weights_that_start_with_the_bytes_of_a_pickle_are_no_pickle(tmp_path, start, length):
    path = tmp_path / "w.safetensors"  # begins with the length of its table of names, a multiple of 8
    for more in range(150):
        save_file({"x" * (length + more): torch.ones(1)}, path)
        if path.read_bytes().startswith(start):
            break
    assert path.read_bytes().startswith(start)
    (weights,) = read_weights(path).values()
    assert torch.equal(weights, torch.ones(1))


def test_missing_weights(tmp_path, folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="no weights file"):
        load_classifier(folder)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        load_classifier(tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0, 1, 7, 20, -1])
def test_truncated_weights(folder, kept):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        load_classifier(folder)


@pytest.mark.parametrize("content", [b"\xff" * 100, b"not weights at all", b"{}", b"\0" * 64])
def test_corrupt_weights(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        read_weights(folder / WEIGHTS)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_unread(folder, network, zipped):
    torch.save(network.state_dict(), folder / WEIGHTS, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="convert it to safetensors"):
        load_classifier(folder)


def test_weights_of_another_network(folder):
    with global_seed(0):
        wider = SmallCNN(filters=(2, 3, 5)).build(1, (8, 6), 3)
    save_file({k: v.contiguous() for k, v in wider.state_dict().items()}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"another network: convolutions\.2\.bias is \(5,\) in the file, \(4,\)"):
        load_classifier(folder)


def test_missing_and_additional_weights(network):
    weights = network.state_dict()
    with pytest.raises(CheckpointError, match=r"head\.weight is missing in the file"):
        load_weights(network, {k: v for k, v in weights.items() if k != "head.weight"}, "it")
    with pytest.raises(CheckpointError, match="not part of it in the network"):
        load_weights(network, weights | {"surplus": torch.zeros(2)}, "it")
    with pytest.raises(CheckpointError, match=r"head\.weight is torch.int64 in the file, torch.float32"):
        load_weights(network, weights | {"head.weight": weights["head.weight"].long()}, "it")


def test_a_refused_file_changes_no_weight(network):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    weights = {k: torch.zeros_like(v) for k, v in before.items()} | {"surplus": torch.zeros(1)}
    with pytest.raises(CheckpointError):
        load_weights(network, weights, "it")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_missing_config(folder):
    (folder / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_classifier(folder)


GOOD = {"model": {"model": "small_cnn", "filters": [2, 3, 4]}, "shape": [1, 8, 6], "classes": ["a", "b", "c"]}


@pytest.mark.parametrize(
    "content",
    [
        b"{not json",
        b"",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        json.dumps({k: v for k, v in GOOD.items() if k != "shape"}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "model"}).encode(),
        json.dumps(GOOD | {"shape": [8, 6]}).encode(),
        json.dumps(GOOD | {"shape": ["a", 8, 6]}).encode(),
        json.dumps(GOOD | {"shape": 3}).encode(),
        json.dumps(GOOD | {"classes": 3}).encode(),
        json.dumps(GOOD | {"classes": None}).encode(),
        json.dumps(GOOD | {"model": {"model": "unheard_of"}}).encode(),
        json.dumps(GOOD | {"model": {"model": "small_cnn", "colour": "red"}}).encode(),
        json.dumps(GOOD | {"model": {"attack": "fgsm", "eps": 0.1}}).encode(),
        json.dumps(GOOD | {"model": 3}).encode(),
    ],
)
def test_corrupt_config(folder, content):
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(CheckpointError, match="config"):
        load_classifier(folder)


def test_config_of_another_shape(folder):
    (folder / CONFIG).write_text(json.dumps(GOOD | {"classes": ["a", "b"]}))
    with pytest.raises(CheckpointError, match=r"head\.weight is \(3, 4\) in the file, \(2, 4\)"):
        load_classifier(folder)


def test_saving_does_not_change_the_network(folder, network, tmp_path):
    network.train()
    first = {k: v.clone() for k, v in network.state_dict().items()}
    save_classifier(tmp_path, network, SPEC, (1, 8, 6), ("a", "b", "c"))
    assert network.training
    assert all(torch.equal(v, first[k]) for k, v in network.state_dict().items())
    assert isinstance(network.head, nn.Linear)


def test_the_device_is_the_one_asked_for(folder):
    assert {p.device.type for p in load_classifier(folder).parameters()} == {"cpu"}
    network = load_classifier(folder, device="meta")  # a device that is everywhere
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert not network.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_network_is_the_same(folder, network):
    there = load_classifier(folder, device="cuda")(IMAGES.cuda())
    assert there.is_cuda
    assert torch.allclose(there.cpu(), network.eval()(IMAGES), atol=1e-4)


@pytest.mark.parametrize("device", ["warp", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there(folder, device):
    with pytest.raises(InputError, match=f"there is no device '{device}' here; cpu always works"):
        load_classifier(folder, device=device)
