"""pellucid bias: its numbers against the metrics themselves, its files, and what it refuses."""

import csv
import io
import os

import pytest
import torch
from PIL import Image

from pellucid.cli.bias import usual
from pellucid.cli.bias_pictures import panels_of, strips_of
from pellucid.cli.biased import Asked, measured
from pellucid.cli.common import Common
from pellucid.data import Digits
from pellucid.metrics import accuracy, accuracy_on_correct, predict
from pellucid.models import load_classifier
from pellucid.report.pictures import spoken
from pellucid.rng import Stream, derive
from pellucid.spec import digest
from pellucid.store import write_tensors
from pellucid.tasks import Checkpoint, Sensitivity, Transformed
from pellucid.transforms import LowPass, PatchShuffle, Saturation
from pellucid.transforms.autoencoder import CompactStylizer, note

from .conftest import SMALL, TRAIN

DATA = Digits(train=60, validation=20, test=20)
TEST = DATA.load("test")
CHOSEN = (Saturation(p=8), Saturation(p=0.5), PatchShuffle(k=2), LowPass(radius=4))
TEXT = "saturation p=8, saturation p=0.5, patch_shuffle k=2, low_pass radius=4"
TITLES = ["saturation p=8", "saturation p=0.5", "patch shuffle k=2", "low pass radius=4"]


@pytest.fixture(scope="module")
def other(tmp_path_factory, one_thread):
    """The folder of a network of another seed, in the folder of the same name."""
    from pellucid.cli import main

    folder = tmp_path_factory.mktemp("another")
    words = [*TRAIN, "--seed", "1", "--store", str(folder / "store"), "--out", str(folder / "net"), "--quiet"]
    assert main(words) == 0
    return folder / "net"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder for a store that the tests of this file share."""
    return ("--store", str(tmp_path_factory.mktemp("judged") / "store"), "--threads", "1", "--quiet")


@pytest.fixture
def words(trained, other, stored):
    return ("bias", trained, other, *SMALL, "--names", "first,second", *stored, "--out", "out")


def predictions(folder, seed=0):
    """What a network predicts for the untouched and the transformed images, worked out here."""
    network, x = load_classifier(folder), TEST.images()
    found = [predict(network, x)]
    for number, transform in enumerate(CHOSEN, 1):
        changed = transform(x, rng=Stream(derive(seed, "transform", number), torch.arange(len(x))))
        with torch.no_grad():
            found.append(network.eval()(changed).argmax(1))
    return found


def test_the_numbers_are_those_of_the_metrics(say, words, trained, other, place):
    told = say(*words, "--transforms", TEXT, "--maps", "0", "--json").json()
    rows = {(row["network"], row["transform"]): row for row in told["rows"]}
    assert len(rows) == len(told["rows"]) == 10
    for name, folder in (("first", trained), ("second", other)):
        clean, *changed = predictions(folder)
        assert rows[name, "untouched"]["accuracy"] == accuracy(clean, TEST.labels).value
        assert rows[name, "untouched"]["on_correct"] is None
        for title, found in zip(TITLES, changed):
            row, whole, kept = rows[name, title], accuracy(found, TEST.labels), accuracy_on_correct(
                clean, found, TEST.labels)  # fmt: skip
            assert [row["accuracy"], row["accuracy_low"], row["accuracy_high"]] == list(whole)
            assert [row["on_correct"], row["on_correct_low"], row["on_correct_high"]] == list(kept)
            assert (row["images"], row["correct_untouched"]) == (20, int((clean == TEST.labels).sum()))
    written = list(csv.DictReader(io.StringIO((place / "out" / "bias.csv").read_text())))
    assert [(row["network"], row["transform"]) for row in written] == list(rows)
    assert [row["on_correct"] for row in written] == [
        "" if row["on_correct"] is None else str(row["on_correct"]) for row in told["rows"]
    ]
    assert sorted(os.listdir(place / "out")) == [
        "bias.csv", "bias.html", "bias.json", "curves.png", "strip-other-transformations.png", "strip-saturation.png",
    ]  # fmt: skip


def test_the_authors_mean_of_ratios_is_an_option(say, words, trained):
    told = say(*words, "--transforms", TEXT, "--maps", "0", "--batch-ratios", "--json").json()
    clean, first, *_ = predictions(trained)
    ratios = accuracy_on_correct(clean, first, TEST.labels, batch=32)
    assert told["batch"] == 32
    assert told["rows"][1]["on_correct"] == ratios.value  # one batch: the pooled share, which has another interval
    assert told["rows"][1]["on_correct_low"] is None


def test_it_is_the_tasks_that_are_run_and_nothing_is_run_twice(say, words, trained, place):
    again = (*words, "--transforms", TEXT, "--maps", "2", "--interpreter", "gradient score=log_probability")
    told = say(*again, "--json").json()
    task = Transformed(network=Checkpoint.of(trained), data=DATA, transforms=CHOSEN)
    assert told["folders"]["first"].endswith(digest(task))
    looks = Sensitivity(network=task.network, data=DATA, transforms=CHOSEN, images=2, shown=2,
                        interpreter="gradient score=log_probability")  # fmt: skip
    store = told["folders"]["first"].split("/transformed/")[0]
    assert os.path.isdir(f"{store}/sensitivity/{digest(looks)}")
    means = {(row["network"], row["measure"], row["transform"]): row["value"] for row in told["maps"]}
    assert len(means) == 2 * 3 * 5
    assert means["first", "similarity", "untouched"] == 1
    assert {"maps-1.png", "maps-2.png"} <= set(os.listdir(place / "out"))
    assert say(*(word for word in again if word != "--quiet")).err.count("done ") == 0


def test_people_read_the_same_numbers(say, words, trained):
    said = say(*words, "--transforms", TEXT, "--maps", "0").out
    clean, first, *_ = predictions(trained)
    kept = accuracy_on_correct(clean, first, TEST.labels)
    assert f"{kept.value:.1%} ({kept.low:.1%} to {kept.high:.1%})" in said
    assert said.startswith("accuracy on correctly classified images; 20 test images of digits\n")
    assert said.splitlines()[-1].endswith("bias.html")


def test_strips_show_the_images_that_were_judged(trained, place):
    """What is drawn, given to the network, has the probability that is printed under it."""
    network = load_classifier(trained)
    task = Transformed(network=Checkpoint.of(trained), data=DATA, transforms=CHOSEN, seed=3)
    asked = Asked(names=("one",), split=TEST, transformed=(task,), conflicts=(), mappings=(), batch=None)
    common = Common(store=place / "store", quiet=True, threads=1)
    strips = strips_of(measured(asked, common), {}, common)
    assert [gallery.column_titles for gallery in strips.values()] == [
        ("untouched", "p=0.5", "p=8"), ("untouched", "patch shuffle k=2", "low pass radius=4"),
    ]  # fmt: skip
    for gallery in strips.values():
        assert len(gallery.rows) == 4
        for row in gallery.rows:
            pixels = torch.stack([torch.as_tensor(picture.pixels)[None] for picture in row.pictures])
            scores = network.eval()(pixels).softmax(1)
            shares, tones = zip(*(line[:2] for one in row.pictures for line in spoken(one, one.caption)))
            percents = [float(share.removeprefix("one · ").removesuffix("\u202f%")) for share in shares]
            true = TEST.classes.index(row.title)
            assert (100 * scores[:, true]).tolist() == pytest.approx(percents, abs=0.051)
            assert (scores.argmax(1) == true).tolist() == [tone == "right" for tone in tones]
            assert tones[0] == "right"  # known untouched


def test_networks_share_the_rows_of_a_strip(trained, other, place):
    """The images are those that all networks know, drawn once."""
    names, networks = ("one", "two"), (Checkpoint.of(trained), Checkpoint.of(other))
    tasks = tuple(Transformed(network=network, data=DATA, transforms=CHOSEN[:2]) for network in networks)
    asked = Asked(names=names, split=TEST, transformed=tasks, conflicts=(), mappings=(), batch=None)
    common = Common(store=place / "store", quiet=True, threads=1)
    (gallery,) = strips_of(measured(asked, common), {"one": "key"}, common).values()
    predicted = [predict(load_classifier(folder), TEST.images()) == TEST.labels for folder in (trained, other)]
    known = (predicted[0] & predicted[1]).nonzero()[:4, 0]
    assert [row.title for row in gallery.rows][: len(known)] == [TEST.classes[TEST.labels[row]] for row in known]
    assert len(gallery.rows) == 4
    for row in gallery.rows:
        for picture in row.pictures:
            said = spoken(picture, picture.caption)
            assert [line.split(" · ")[0] for line, _, _ in said] == list(names)
            assert [key for _, _, key in said] == ["key", None]


def test_what_is_mapped_stands_side_by_side(trained, place):
    task = Transformed(network=Checkpoint.of(trained), data=DATA, transforms=CHOSEN, images=6)
    looks = Sensitivity(
        network=task.network, data=DATA, transforms=CHOSEN[2:], interpreter="gradient", images=1, shown=1
    )
    asked = Asked(names=("one",), split=TEST, transformed=(task,), conflicts=(), mappings=(looks,), batch=None)
    common = Common(store=place / "store", quiet=True, threads=1)
    found = measured(asked, common)
    strips = strips_of(found, {}, common)
    assert list(strips) == ["strip-side-by-side", "strip-saturation", "strip-other-transformations"]
    assert strips["strip-side-by-side"].column_titles == ("untouched", "patch shuffle k=2", "low pass radius=4")
    (panel,) = panels_of(found, {}).values()
    assert panel.column_titles == ("untouched", "patch shuffle k=2", "low pass radius=4")
    assert [row.title for row in panel.rows] == [TEST.classes[TEST.labels[0]], "one"]


def test_conflicting_cues_are_judged_where_there_is_a_stylizer(say, words, place):
    (place / "paintings").mkdir()
    for number in range(3):
        Image.effect_noise((40, 40), 40 * number + 20).convert("RGB").save(place / "paintings" / f"{number}.png")
    torch.manual_seed(0)
    painter = CompactStylizer(width=4, levels=2)
    write_tensors(place / "painter", dict(painter.state_dict()), note({"width": 4, "levels": 2}))
    told = say(*words, "--transforms", "edges", "--styles", "paintings", "--stylizer", "painter", "--maps", "1",
               "--interpreter", "gradient", "--images", "10", "--json").json()  # fmt: skip
    assert "compact" in told["stylizer"]
    assert [row["transform"] for row in told["rows"]][:3] == ["untouched", "edges", "stylize refine=40"]
    for name in ("first", "second"):
        one, known = told["shape_bias"][name], next(r for r in told["rows"] if r["network"] == name)
        assert one["shape"] + one["texture"] + one["neither"] == known["correct_untouched"]
        decided = one["shape"] + one["texture"]
        assert one["shape_bias"] == (one["shape"] / decided if decided else None)
    assert "Shape bias" in (place / "out" / "bias.html").read_text()


def test_levels_are_the_papers_and_those_that_fit_the_images():
    titles = [type(one).__name__ for one in usual((3, 32, 32))]
    assert titles.count("Saturation") == 9
    assert [one.k for one in usual((3, 32, 32)) if isinstance(one, PatchShuffle)] == [2, 4, 8]
    assert [one.k for one in usual((1, 28, 28)) if isinstance(one, PatchShuffle)] == [2, 4]
    assert [one.radius for one in usual((3, 224, 224)) if isinstance(one, LowPass)] == [14, 28, 56]
    assert "Grayscale" in titles
    assert "Grayscale" not in [type(one).__name__ for one in usual((1, 28, 28))]
    for size in (7, 28, 96):
        assert len(set(usual((3, size, size)))) == len(usual((3, size, size)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--transforms", ""), "--transforms names none"),
        (("--transforms", " , "), "--transforms names none"),
        (("--transforms", "satturation p=8"), "no transform called 'satturation'; known: blur, edges"),
        (("--transforms", "saturation q=8"), "transform saturation has no field 'q'; its fields are p"),
        (("--transforms", "saturation"), "transform saturation needs p"),
        (("--transforms", "patch_shuffle k=5"), "28 x 28 pixels cannot be cut into 5 x 5 equal patches"),
        (("--transforms", "blur sigma=1, blur sigma=1.0"), "names blur sigma=1 twice"),
        (("--transforms", "edges", "--maps", "-1"), "--maps must be 0 or more"),
        (("--transforms", "edges", "--images", "0"), "task transformed.images"),
        (("--transforms", "edges", "--interpreter", "smothgrad"), "no interpreter called 'smothgrad'"),
        (("--names", "one,two"), "--names names 2 networks, but 1 are given"),
        (("eps=3",), "eps=3 belongs to nothing here"),
        (("--styles", "paintings"), "stylised images need --styles"),
        (("--styles", "paintings", "--stylizer", "painter"), "--styles paintings is no folder"),
    ],
)
def test_refusals(refused, trained, words, said):
    assert said in refused("bias", trained, *SMALL, *words)


def test_networks_that_cannot_be_told_apart_are_refused(refused, trained, other):
    assert "two networks are called 'net'" in refused("bias", trained, other, *SMALL)
    assert "two networks are called 'a'" in refused("bias", trained, other, *SMALL, "--names", "a,a")


def test_a_network_for_other_images_is_refused_before_anything_is_run(refused, trained, place):
    for part in ("train", "validation", "test"):
        (place / "small" / part / "a").mkdir(parents=True)
        Image.effect_noise((16, 16), 50).save(place / "small" / part / "a" / "x.png")
    sentence = refused("bias", trained, "--data", "folder", "data.path=small")
    assert "net was made for images (1, 28, 28); small has images (1, 16, 16)" in sentence


def test_images_without_labels_are_refused(refused, trained, place):
    Image.effect_noise((28, 28), 50).save(place / "x.png")
    words = ("bias", trained, "--data", "pictures", "data.path=x.png", "data.channels=1", "data.size=28,28")
    assert "has no labels" in refused(*words)


def test_no_network_is_refused(refused):
    assert "needs the folder of a checkpoint" in refused("bias", "--data", "digits")
