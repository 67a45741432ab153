"""Fitting, painting and measuring on embedded digits."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pellucid.data import Digits
from pellucid.errors import CheckpointError, SpecError, TrainingError
from pellucid.maths.edges import luma
from pellucid.metrics import NamedLayers, RandomTextures, colour_matched, edge_correlation, gram_distance
from pellucid.models import load_classifier
from pellucid.spec import digest, from_dict, to_dict
from pellucid.store import Store
from pellucid.tasks import FitStylizer, StyleMeasure, Stylised, run, stylizing
from pellucid.tasks.parquet import read_columns
from pellucid.transforms import Saturation, Stylize
from pellucid.transforms.autoencoder import compact_stylizer, told
from pellucid.transforms.style_fit import style_losses
from pellucid.transforms.stylize import FITTED

from .conftest import FAST, SMALL, Journal, Killed

DATA, PAINTINGS = Digits(train=30, validation=5, test=12), Digits(train=20, validation=2, test=3)
FIT = FitStylizer(
    content=DATA, styles=PAINTINGS, steps=6, encoder_steps=5, batch_size=2, encoder_batch_size=8, size=16, width=3
)
STYLIZE = Stylize(styles=PAINTINGS, fitted=FIT)
PAINT = Stylised(stylize=STYLIZE, data=DATA, images=7, chunk=3, seed=2)
LAYERS = ("convolutions.0", "convolutions.1")
MEASURE = StyleMeasure(stylize=STYLIZE, data=DATA, paintings=PAINTINGS, network=SMALL, layers=LAYERS, images=4, chunk=3)


@pytest.fixture(scope="module", autouse=True)
def short_pieces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stylizing, "_PIECE", 2)
        yield


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, short_pieces):
    store = Store(tmp_path_factory.mktemp("styles") / "store")
    return store, run(FIT, store, FAST)


def test_a_fitted_stylizer_says_what_it_is(fitted):
    path = fitted[1].folder / FITTED
    assert told(path)["called"] == FIT.called == "AdaIN, compact autoencoder fitted on digits and digits, 5 + 6 steps"
    network = compact_stylizer(path)
    assert (network.width, network.levels) == (3, 3)
    assert [(row["phase"], row["step"]) for row in fitted[1].json("fitted.json")["history"]] == [
        ("encoder", 2), ("encoder", 4), ("encoder", 5), ("decoder", 2), ("decoder", 4), ("decoder", 6),
    ]  # fmt: skip
    assert fitted[1].meta["passes"]["forward"] == 5 * 8 + 6 * 2


@pytest.mark.parametrize("die_at", [(4, 11), (7, 11), (11, 11)])
def test_a_killed_fit_ends_with_the_same_bits(fitted, store, die_at):
    with pytest.raises(Killed):
        run(FIT, store, FAST, Journal(die_at=die_at))
    journal = Journal()
    found = run(FIT, store, FAST, journal)
    assert found.meta["files"][FITTED] == fitted[1].meta["files"][FITTED]
    assert found.meta["passes"] == fitted[1].meta["passes"]


def test_the_encoder_stays_while_the_decoder_learns(tmp_path):
    (tmp_path / "stripes").mkdir()
    for number, width in enumerate((1, 2, 3)):  # a texture that digits do not have
        stripes = np.zeros((32, 32, 3), np.uint8)
        stripes[:, np.arange(32) // width % 2 == 0] = (200, 180, 60)
        Image.fromarray(stripes).save(tmp_path / "stripes" / f"{number}.png")
    styles = {"data": "style_images", "path": str(tmp_path / "stripes"), "size": 32}
    long = from_dict(to_dict(FIT) | {"styles": styles, "steps": 150, "lr": 1e-2, "batch_size": 4, "width": 6})
    one = from_dict(to_dict(long) | {"steps": 1})
    store = Store(tmp_path / "store")
    first, last = (compact_stylizer(run(task, store, FAST).folder / FITTED) for task in (one, long))
    ends = {key: value for key, value in last.state_dict().items() if key.startswith("encoder.")}
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in ends.items())
    x = torch.nn.functional.interpolate(DATA.load("test").images(), scale_factor=2).expand(-1, 3, -1, -1)
    style = long.styles.load("train").images()[torch.arange(12) % 3]
    before, after = (style_losses(network, x, style) for network in (first, last))
    assert after.total(long.style_weight, long.gram_weight) < 0.8 * before.total(long.style_weight, long.gram_weight)


def test_seeds_and_broken_fits(fitted, store):
    other = run(from_dict(to_dict(FIT) | {"seed": 1}), store, FAST)
    assert other.meta["files"][FITTED] != fitted[1].meta["files"][FITTED]
    with pytest.raises(TrainingError, match="lower lr"):
        run(from_dict(to_dict(FIT) | {"encoder_lr": 1e30}), store, FAST)


def test_painted_images_are_the_transformations(fitted):
    store, made = fitted
    found = run(PAINT, store, FAST)
    tensors, said = found.tensors("stylised.safetensors"), found.json("stylised.json")
    ready = STYLIZE.opened(made.folder)
    x = DATA.load("test").images(slice(7))
    assert torch.equal(tensors["images"], x)
    paintings = PAINTINGS.load("train").images()
    assert torch.equal(tensors["paintings"], paintings[said["styles"]].expand(-1, 3, -1, -1))
    torch.testing.assert_close(tensors["stylised"], ready.with_styles(x, paintings[said["styles"]]))
    assert said["stylizer"] == ready.stylizer_name
    assert FIT.called in said["stylizer"]
    assert "stand-in for VGG-19" in said["stylizer"]
    assert len(set(said["styles"])) > 3


def test_what_is_measured_is_what_the_metrics_say(fitted):
    store, made = fitted
    found = run(MEASURE, store, FAST)
    told, columns = found.json("measurement.json"), read_columns(found.folder / "measured.parquet")
    x = DATA.load("test").images(slice(4)).expand(-1, 3, -1, -1)
    painting = PAINTINGS.load("test").images()[1:2].expand(-1, 3, -1, -1)  # the fourth, behind two of validation
    painted = STYLIZE.opened(made.folder).with_styles(x, painting)
    rows = (columns["style"] == 3) & (columns["network"] == 0)
    assert columns["index"][rows].tolist() == [0, 1, 2, 3]
    network = RandomTextures()
    matched = colour_matched(x, painting, "covariance")
    for name, images in (("before", x), ("stylised", painted), ("covariance", matched)):
        wanted = torch.stack(list(gram_distance(network, images, painting).values())).mean(0)
        torch.testing.assert_close(columns[name][rows], wanted)
    torch.testing.assert_close(columns["edges_stylised"][rows], edge_correlation(painted, x).float())
    assert told["layers"].keys() == {"random", "random with means", *(k for k in told["layers"] if "small_cnn" in k)}
    assert len(told["layers"]) == 3
    rows = (columns["style"] == 3) & (columns["network"] == 2)  # grey images to a network of grey images
    network = NamedLayers(load_classifier(store.open(SMALL).folder), LAYERS)
    trained = gram_distance(network, luma(painted)[:, None], luma(painting)[:, None])
    torch.testing.assert_close(columns["stylised"][rows], torch.stack(list(trained.values())).mean(0))
    for place, name in enumerate(told["layers"]):
        rows = columns["network"] == place
        before, after = (columns[key][rows].view(5, 4) for key in ("before", "stylised"))
        left = float((after.mean(0) / before.mean(0)).mean())
        assert told[name]["left"]["stylised"]["value"] == pytest.approx(left, rel=1e-5)
        assert told[name]["falls_by_half"] == (left <= 0.5)
        others = [told[name]["left"][key]["value"] for key in ("moments", "covariance")]
        assert told[name]["further_than_colours"] == (left < min(others))


def test_vgg_measures_where_its_file_is(fitted, tmp_path):
    shapes = {"0": (3, 64), "2": (64, 64), "5": (64, 128), "7": (128, 128), "10": (128, 256), "12": (256, 256)}
    shapes |= {"14": (256, 256), "16": (256, 256), "19": (256, 512)}
    draw = torch.Generator().manual_seed(0)
    table = {f"features.{k}.weight": torch.randn(b, a, 3, 3, generator=draw) / a**0.5 for k, (a, b) in shapes.items()}
    table |= {f"features.{k}.bias": torch.zeros(b) for k, (_, b) in shapes.items()}
    save_file(table, tmp_path / "vgg19.safetensors")
    task = from_dict(to_dict(MEASURE) | {"network": None, "images": 2, "vgg": str(tmp_path / "vgg19.safetensors")})
    told = run(task, fitted[0], FAST).json("measurement.json")
    assert told["layers"]["VGG-19"] == ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    assert 0 < told["VGG-19"]["left"]["covariance"]["value"] < 1
    save_file(table | {"features.0.bias": torch.ones(64)}, tmp_path / "vgg19.safetensors")
    with pytest.raises(CheckpointError, match="not the file it was"):
        run(from_dict(to_dict(task) | {"seed": 1}), fitted[0], FAST)


def test_only_stylize_paints():
    with pytest.raises(SpecError, match="must be stylize, not saturation"):
        Stylised(stylize=Saturation(p=2), data=DATA)


def test_descriptions_round_trip():
    for task in (FIT, PAINT, MEASURE):
        assert from_dict(to_dict(task)) == task
        assert digest(from_dict(to_dict(task))) == digest(task)
