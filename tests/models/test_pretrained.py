import logging
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from pellucid.errors import CheckpointError, InputError
from pellucid.models import ResNet18, load_classifier, load_torchvision, save_classifier
from pellucid.models.checkpoint import CONFIG
from pellucid.rng import global_seed
from pellucid.spec import digest, from_dict, to_dict
from pellucid.weights import read_tensors

SPEC = ResNet18(stem="imagenet", width=2, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
IMAGES = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


def torchvisions(width=2, classes=7, counters=True):
    """Return the table of weights that torchvision's resnet18 has, at another width."""
    generator, table = torch.Generator().manual_seed(0), {}

    def convolution(name, inputs, outputs, kernel):
        table[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) / 3

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            table[f"{name}.{part}"] = 0.5 + torch.rand(channels, generator=generator)
        if counters:
            table[f"{name}.num_batches_tracked"] = torch.tensor(5)

    convolution("conv1", 3, width, 7)
    norm("bn1", width)
    inputs = width
    for group in range(4):
        outputs = width * 2**group
        for block in range(2):
            name = f"layer{group + 1}.{block}"
            convolution(f"{name}.conv1", inputs, outputs, 3)
            norm(f"{name}.bn1", outputs)
            convolution(f"{name}.conv2", outputs, outputs, 3)
            norm(f"{name}.bn2", outputs)
            if group and not block:
                convolution(f"{name}.downsample.0", inputs, outputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    table["fc.weight"] = torch.randn(classes, inputs, generator=generator)
    table["fc.bias"] = torch.randn(classes, generator=generator)
    return table


@pytest.fixture
def file(tmp_path):
    save_file(torchvisions(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def fresh(classes=7, spec=SPEC):
    with global_seed(0):
        return spec.build(3, (16, 16), classes).eval()


def test_names_are_torchvisions_but_for_the_head():
    own = {key for key in fresh().state_dict() if key not in ("mean", "std")}
    assert own == {key.replace("fc.", "head.") for key in torchvisions()}
    assert len(torchvisions()) == 122  # of torchvision's resnet18


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "old.pt"])
def test_every_weight_arrives(tmp_path, name):
    path, table = tmp_path / name, torchvisions()
    if name.endswith("safetensors"):
        save_file(table, path)
    else:
        torch.save(table, path, _use_new_zipfile_serialization=name == "weights.pth")
    network = fresh()
    load_torchvision(network, path)
    state = network.state_dict()
    assert all(torch.equal(state[key.replace("fc.", "head.")], value) for key, value in table.items())
    assert state["mean"].flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_files_without_counters_are_read(tmp_path):
    save_file(torchvisions(counters=False), tmp_path / "w")
    network = fresh()
    load_torchvision(network, tmp_path / "w")
    assert torch.equal(network.bn1.running_mean, torchvisions(counters=False)["bn1.running_mean"])


def test_another_number_of_classes_keeps_a_fresh_head_and_says_so(file, caplog):
    network, head = fresh(classes=4), fresh(classes=4).head.weight
    with caplog.at_level(logging.WARNING, logger="pellucid.models"):
        load_torchvision(network, file)
    assert "has 7 classes, the network 4: its last layer is new" in caplog.text
    assert torch.equal(network.head.weight, head)
    assert torch.equal(network.conv1.weight, torchvisions()["conv1.weight"])
    caplog.clear()
    load_torchvision(fresh(), file)
    assert not caplog.text


@pytest.mark.parametrize(
    ("spec", "difference"),
    [
        (ResNet18(width=2), r"conv1.weight is \(2, 3, 7, 7\) in the file, \(2, 3, 3, 3\) in the network"),
        (ResNet18(width=4, stem="imagenet"), r"bn1.bias is \(2,\) in the file, \(4,\) in the network"),
        (ResNet18(width=2, stem="imagenet", blocks=(2, 2, 2, 3)), r"layer4.2.bn1.bias is missing in the file"),
        (ResNet18(width=2, stem="imagenet", blocks=(2, 2, 1, 2)), r"layer3.1.bn1.bias is .* not part of it"),
    ],
)
def test_files_of_another_network_are_refused_with_the_first_difference(file, spec, difference):
    with pytest.raises(CheckpointError, match=difference):
        load_torchvision(fresh(spec=spec), file)


def test_pickles_that_hold_code_are_refused_and_it_does_not_run(tmp_path):
    mark = tmp_path / "ran"

    class Touches:
        def __reduce__(self):
            return open, (str(mark), "w")

    torch.save({"conv1.weight": torch.zeros(1), "more": Touches()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_tensors(tmp_path / "w.pth")
    assert not mark.exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {1: torch.zeros(1)}, torch.zeros(2)])
def test_what_is_no_table_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no table of named tensors"):
        read_tensors(tmp_path / "w.pth")


def test_damaged_and_missing_files_are_refused(tmp_path, file):
    torch.save(torchvisions(), tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for kept in (2, 100, len(whole) // 2):
        (tmp_path / "w.pth").write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match="damaged"):
            read_tensors(tmp_path / "w.pth")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        load_torchvision(fresh(), file)
    with pytest.raises(CheckpointError, match="no weights file"):
        load_torchvision(fresh(), tmp_path / "nowhere.pth")


# -------------------------------------------------------------------------------------------- as a description


def started_from(place, **more):
    return ResNet18(stem="imagenet", width=2, weights=str(place), **more)


def test_a_description_starts_from_the_file(file):
    network = fresh(spec=started_from(file))
    assert torch.equal(network.head.weight, torchvisions()["fc.weight"])


def test_the_content_counts_and_the_place_does_not(file, tmp_path):
    spec = started_from(file)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    assert digest(started_from(moved)) == digest(spec)
    assert digest(spec.blank()) != digest(spec)
    save_file(torchvisions(classes=8), moved)
    assert digest(started_from(moved)) != digest(spec)
    with pytest.raises(CheckpointError, match="is not the file it was"):
        fresh(spec=started_from(moved, sha256=spec.sha256))
    file.unlink()
    assert from_dict(to_dict(spec)) == spec  # a description is read where the file is not


def test_a_trained_network_is_read_where_the_first_weights_are_not(file, tmp_path):
    spec, folder = started_from(file), tmp_path / "saved"
    network = fresh(spec=spec)
    with torch.no_grad():
        network.conv1.weight.mul_(2)
    folder.mkdir()
    save_classifier(folder, network, spec, (3, 16, 16), tuple("abcdefg"))
    file.unlink()
    assert torch.equal(load_classifier(folder)(IMAGES), network(IMAGES))
    assert spec.sha256 in (folder / CONFIG).read_text()
    assert str(file) not in (folder / CONFIG).read_text()  # where it lay is nobody's business


def test_normalisation_of_another_number_of_channels_is_refused():
    with pytest.raises(InputError, match="one per channel"):
        SPEC.build(1, (16, 16), 3)


@pytest.fixture
def client(monkeypatch, file):
    """A hub that holds one file, and remembers what it was asked."""
    module = types.ModuleType("huggingface_hub")
    module.asked = []

    def hf_hub_download(repo, name, *, revision):
        module.asked.append((repo, name, revision))
        if repo != "owner/name":
            raise OSError("no such repository")
        return str(file)

    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_files_of_the_hub(client, file):
    network = fresh(spec=started_from("hf://owner/name/sub/model.safetensors@v1"))
    assert torch.equal(network.head.weight, torchvisions()["fc.weight"])
    assert set(client.asked) == {("owner/name", "sub/model.safetensors", "v1")}
    assert digest(started_from("hf://owner/name/model.safetensors")) == digest(started_from(file))
    with pytest.raises(CheckpointError, match=r"could not be fetched \(OSError\)"):
        started_from("hf://owner/other/model.safetensors")
    for wrong in ("hf://owner/name", "hf://owner/name/", "hf://model.safetensors"):
        with pytest.raises(CheckpointError, match="names no file of the hub"):
            started_from(wrong)
