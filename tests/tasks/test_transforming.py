"""Transformed images, conflicting cues and maps of transformed images, by networks whose decisions are known."""

import shutil
from dataclasses import dataclass, replace

import pytest
import torch

from pellucid import spec
from pellucid.data import Digits
from pellucid.errors import DataError, InputError, SpecError
from pellucid.interpreters import CAM, Gradient, SmoothGrad
from pellucid.metrics import contour_correlation, predict, saliency_distance, shape_bias, sparsity, spearman
from pellucid.models import load_classifier
from pellucid.rng import Stream, derive
from pellucid.spec import digest, from_dict, names, register, to_dict
from pellucid.store import Store, read_tensors, write_tensors
from pellucid.tasks import CueConflict, ImportedNetwork, Sensitivity, Transformed, run
from pellucid.tasks.graph import inputs, rehearse
from pellucid.tasks.imported import _named
from pellucid.tasks.parquet import read_columns
from pellucid.tasks.stylizing import FitStylizer
from pellucid.tasks.transforming import others
from pellucid.transforms import GaussianNoise, HighPass, PatchShuffle, Saturation
from pellucid.transforms.stylize import Stylize

from .conftest import DATA, FAST, SMALL, Journal, Killed

TEST = DATA.load("test")
TRANSFORMS = (Saturation(p=2), PatchShuffle(k=4), HighPass(radius=2), GaussianNoise(sigma=0.3), Saturation(p=1024))
TASK = Transformed(network=SMALL, data=DATA, transforms=TRANSFORMS, chunk=10)
MAPS = Sensitivity(
    network=SMALL, data=DATA, transforms=TRANSFORMS[:4], interpreter=SmoothGrad(samples=3), images=12, shown=7, chunk=5
)
CODE = """
import torch
from torch import nn
from pellucid.data import Digits

class Nearest(nn.Module):
    '''Knows the test images by heart: the class of the one that is nearest.'''
    def __init__(self):
        super().__init__()
        split = Digits(train=60, validation=20, test=25).load("test")
        self.register_buffer("known", split.images().flatten(1))
        self.register_buffer("labels", split.labels)
    def forward(self, x):
        apart = torch.cdist(x.flatten(1), self.known)
        return torch.stack([-apart[:, self.labels == k].amin(1) for k in range(10)], 1)

class Bright(nn.Module):
    '''Class 0, and class 1 where the mean is above a half, whose logit is then 2.'''
    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return nn.functional.pad(2.0 * (mean > 0.5)[:, None], (1, 8)) + nn.functional.pad(torch.ones(len(x), 1), (0, 9))
"""


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Becomes its style altogether, or not at all for an alpha of 0."""

    alpha: float = 1.0

    def __call__(self, images, *, rng=None):
        return images

    def with_styles(self, images, styles):
        return (1 - self.alpha) * images + self.alpha * styles


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register it for this module only: the contract suite goes through all that there is."""
    with pytest.MonkeyPatch.context() as patch:
        names("transform")
        patch.setitem(spec._REGISTRY, "transform", dict(spec._REGISTRY["transform"]))
        register("transform", "test_styling")(Mixed)
        yield


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Networks that code makes, importable from the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "known_nets.py").write_text(CODE)
    yield lambda name: ImportedNetwork.of(f"known_nets:{name}")
    _named.clear()


@pytest.fixture(scope="module")
def network(filled):
    return load_classifier(filled.folder(SMALL))


def found(task, store):
    return read_columns(run(task, store, FAST).folder / "transformed.parquet")


def by_hand(rows, seed=0):
    """Return the images (n, ...) under each of the transformations, made one image at a time."""
    x = TEST.images()
    streams = [[Stream(derive(seed, "transform", i), torch.tensor([row])) for row in rows] for i in range(6)]
    made = [torch.cat([t(x[row][None], rng=streams[i][n]) for n, row in enumerate(rows)]) for i, t in TIMES]
    return [x[list(rows)], *made]


TIMES = list(enumerate(TRANSFORMS, 1))


# ------------------------------------------------------------------------------------------------- Transformed


def test_each_row_is_what_the_network_says_of_that_image_so_transformed(filled, network):
    table = found(TASK, filled)
    assert list(table) == ["index", "label", "transform", "predicted", "probability"]
    assert torch.equal(table["index"], torch.arange(25).repeat(6))
    assert torch.equal(table["label"], TEST.labels.repeat(6))
    assert torch.equal(table["transform"], torch.arange(6).repeat_interleave(25))
    for number, images in enumerate(by_hand(range(25))):
        logits = network(images).detach()
        here = table["transform"] == number
        assert torch.equal(table["predicted"][here], logits.argmax(1)), number
        own = logits.softmax(1)[torch.arange(25), TEST.labels]
        torch.testing.assert_close(table["probability"][here], own, rtol=1e-4, atol=1e-7)


def test_untouched_images_are_predicted_as_ever_and_an_identity_says_the_same(filled, network):
    table = {name: values.view(6, 25) for name, values in found(TASK, filled).items()}
    assert torch.equal(table["predicted"][0], predict(network, TEST.images()))
    assert torch.equal(table["predicted"][1], table["predicted"][0])
    torch.testing.assert_close(table["probability"][1], table["probability"][0])
    assert not torch.allclose(table["probability"][2], table["probability"][0])


def test_a_network_of_known_decisions(known, store):
    table = found(
        Transformed(network=known("Bright"), data=DATA, transforms=(Saturation(p=2), HighPass(radius=0))), store
    )
    bright = TEST.images().mean((1, 2, 3)) > 0.5
    assert torch.equal(table["predicted"][:25], bright.long())
    assert not bool(table["predicted"][50:].any()), "without their mean no image is bright, though many leave [0, 1]"
    e = torch.e
    own = torch.where(TEST.labels == 0, e / (e + 9), 1 / (e + 9))
    torch.testing.assert_close(table["probability"][50:], own)


@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_size_of_the_chunks_does_not_matter(filled, tmp_path, chunk):
    shutil.copytree(filled.root, tmp_path / "store")
    first, again = found(TASK, filled), found(replace(TASK, chunk=chunk), Store(tmp_path / "store"))
    assert all(torch.equal(first[name], again[name]) for name in ("index", "label", "transform", "predicted"))
    torch.testing.assert_close(first["probability"], again["probability"], rtol=1e-4, atol=1e-7)


def test_the_first_images_and_another_seed(filled, tmp_path):
    shutil.copytree(filled.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    whole = {name: values.view(6, 25) for name, values in found(TASK, filled).items()}
    few = found(replace(TASK, images=8), store)
    torch.testing.assert_close(few["probability"].view(6, 8), whole["probability"][:, :8], rtol=1e-4, atol=1e-7)
    other = found(replace(TASK, seed=1), store)["probability"].view(6, 25)
    same = [torch.allclose(other[t], whole["probability"][t], rtol=1e-4, atol=1e-7) for t in range(6)]
    assert same == [True, True, False, True, False, True]  # what is random: patches and noise


def test_what_was_made_before_a_kill_is_read_not_made_again(filled, tmp_path):
    shutil.copytree(filled.root, tmp_path / "store")
    store, task = Store(tmp_path / "store"), replace(TASK, chunk=9)
    with pytest.raises(Killed):
        run(task, store, FAST, Journal(die_at=(18, 25)))
    first = store.scratch(task) / "rows-0000000.safetensors"
    write_tensors(first, read_tensors(first) | {"probability": torch.full((6, 9), 7.0)})
    again = found(task, store)["probability"].view(6, 25)
    assert bool((again[:, :9] == 7).all())
    torch.testing.assert_close(
        again[:, 9:], found(TASK, filled)["probability"].view(6, 25)[:, 9:], rtol=1e-4, atol=1e-7
    )


def test_a_task_is_read_back_and_its_transformations_count():
    assert from_dict(to_dict(TASK)) == TASK
    assert replace(TASK, transforms="saturation p=2,patch_shuffle k=4").transforms == TRANSFORMS[:2]
    assert digest(replace(TASK, transforms=TRANSFORMS[::-1])) != digest(TASK)
    assert list(inputs(TASK)) == [SMALL]


@pytest.fixture(params=["transformed", "sensitivity", "cue_conflict"])
def task(request):
    """One task of each kind."""
    conflicting = CueConflict(network=SMALL, data=DATA, stylize=Mixed())
    return {"transformed": TASK, "sensitivity": MAPS, "cue_conflict": conflicting}[request.param]


def test_images_without_labels_are_refused(filled, monkeypatch, task):
    split = replace(TEST, labelled=False)
    monkeypatch.setattr(type(DATA), "load", lambda self, part: split)
    task = replace(task, images=3)
    with pytest.raises(DataError, match="has no labels: what a network goes by"):
        run(task, filled, FAST)
    assert not filled.scratch(task).exists()


def test_what_a_transformation_refuses_leaves_nothing(filled):
    task = replace(TASK, transforms=(Saturation(p=4), PatchShuffle(k=8)))
    with pytest.raises(InputError, match="28 x 28 pixels cannot be cut into 8 x 8"):
        run(task, filled, FAST)
    assert not filled.scratch(task).exists()


def test_it_can_be_timed_before(filled, task):
    assert rehearse(task, filled, FAST).seconds > 0
    assert rehearse(replace(task, data=Digits(test=24)), Store(filled.root.parent / "none"), FAST).seconds > 0


# ------------------------------------------------------------------------------------------------- CueConflict


def conflict(task, store):
    return read_columns(run(task, store, FAST).folder / "conflict.parquet")


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_network_that_knows_all_images_names_the_shape_or_the_texture(known, store, alpha):
    task = CueConflict(network=known("Nearest"), data=DATA, stylize=Mixed(alpha=alpha), chunk=10)
    table = conflict(task, store)
    assert list(table) == ["index", "shape", "style", "texture", "clean", "predicted"]
    assert torch.equal(table["index"], torch.arange(25))
    assert torch.equal(table["shape"], TEST.labels)
    assert torch.equal(table["clean"], TEST.labels)
    assert torch.equal(table["texture"], TEST.labels[table["style"]])
    assert bool((table["texture"] != table["shape"]).all())
    assert torch.equal(table["predicted"], table["texture" if alpha else "shape"])
    bias = shape_bias(table["predicted"], table["shape"], table["texture"], clean=table["clean"])
    assert (bias.bias.value, bias.neither) == (1 - alpha, 0)


def test_styles_depend_on_the_seed_and_the_image_not_on_chunks_or_how_many(filled, tmp_path):
    shutil.copytree(filled.root, tmp_path / "store")
    store, task = Store(tmp_path / "store"), CueConflict(network=SMALL, data=DATA, stylize=Mixed(), chunk=25)
    whole = conflict(task, store)
    chunked = conflict(replace(task, chunk=4), store)
    assert all(torch.equal(whole[name], chunked[name]) for name in whole)
    few = conflict(replace(task, images=6), store)
    assert torch.equal(few["style"], whole["style"][:6])
    assert not torch.equal(conflict(replace(task, seed=1), store)["style"], whole["style"])


def test_every_image_of_another_class_is_as_likely():
    split = replace(TEST, labels=torch.tensor([2] * 2000 + [0] * 12 + [2] * 2000 + [1] * 10))
    rows = (split.labels == 2).nonzero()[:, 0]
    drawn = others(split, rows, 3)
    counts = torch.bincount(drawn, minlength=4022)
    assert int(counts[rows].sum()) == 0
    counts = counts[split.labels != 2]
    assert float(((counts - 4000 / 22) ** 2 / (4000 / 22)).sum()) < 46.8  # chi-square, 21 degrees, p = 0.001
    assert torch.equal(drawn[4:9], others(split, rows[4:9], 3))
    assert not torch.equal(drawn, others(split, rows, 4))


def test_conflicts_need_a_style_and_a_second_class(filled, monkeypatch):
    with pytest.raises(SpecError, match=r"must take styles from images \(stylize does\); saturation has none"):
        CueConflict(network=SMALL, data=DATA, stylize=Saturation(p=2))
    split = replace(TEST, labels=torch.full((25,), 3))
    monkeypatch.setattr(type(DATA), "load", lambda self, part: split)
    with pytest.raises(DataError, match="all images of digits are of one class"):
        run(CueConflict(network=SMALL, data=DATA, stylize=Mixed(), images=2), filled, FAST)


def test_what_a_task_has_to_make_for_a_transformation_is_made_first_and_named(filled, network, tmp_path):
    shutil.copytree(filled.root, tmp_path / "store")
    store, fit = Store(tmp_path / "store"), FitStylizer(content=DATA, styles=DATA, steps=2, encoder_steps=1, width=4)
    stylize = Stylize(styles=DATA, fitted=fit)
    task = replace(TASK, transforms=(Saturation(p=4), stylize), images=4)
    assert digest(fit) in map(digest, inputs(task))
    table = found(task, store)
    ready, x = stylize.opened(store.folder(fit)), TEST.images(slice(4))
    painted = ready(x, rng=Stream(derive(0, "transform", 2), torch.arange(4)))
    own = network(painted).detach().softmax(1)[torch.arange(4), TEST.labels[:4]]
    torch.testing.assert_close(table["probability"][8:], own, rtol=1e-4, atol=1e-6)
    assert store.open(task).json("transforms.json") == [
        {"transform": "saturation", "stylizer": None},
        {"transform": "stylize", "stylizer": ready.stylizer_name},
    ]
    table = conflict(CueConflict(network=SMALL, data=DATA, stylize=stylize, images=5), store)
    painted = ready.with_styles(TEST.images(slice(5)), TEST.images(table["style"]))
    assert torch.equal(table["predicted"], predict(network, painted))


# ------------------------------------------------------------------------------------------------- Sensitivity


def test_the_maps_are_those_of_the_interpreter_and_measured_by_the_metrics(filled, network):
    result = run(MAPS, filled, FAST)
    table = {name: values.view(5, 12) for name, values in read_columns(result.folder / "sensitivity.parquet").items()}
    shown = result.tensors("maps.safetensors")
    assert shown["images"].shape == (5, 7, 1, 28, 28)
    assert shown["maps"].shape == (5, 7, 28, 28)
    assert torch.equal(shown["labels"], TEST.labels[:7])
    labels, rng = TEST.labels[:12], Stream(derive(0, "maps"), torch.arange(12))
    maps = []
    for number, images in enumerate(by_hand(range(12))[:5]):
        maps.append(MAPS.interpreter.maps(network, images, labels, rng=rng).abs().sum(1))
        torch.testing.assert_close(shown["images"][number], images[:7])
        torch.testing.assert_close(shown["maps"][number], maps[-1][:7], rtol=1e-3, atol=1e-6)
        own = network(images).detach().softmax(1)[torch.arange(12), labels]
        torch.testing.assert_close(table["probability"][number], own, rtol=1e-4, atol=1e-7)
        for name, values in (
            ("sparsity", sparsity(maps[-1])),
            ("contours", contour_correlation(maps[-1], images)),
            ("similarity", spearman(maps[0], maps[-1])),
            ("distance", saliency_distance(maps[0], maps[-1])),
        ):
            torch.testing.assert_close(table[name][number], values, rtol=1e-3, atol=1e-4)
        assert torch.equal(table["predicted"][number], network(images).argmax(1))
    torch.testing.assert_close(shown["probabilities"], table["probability"][:, :7])


def test_untouched_maps_are_like_themselves_as_are_those_under_an_identity(filled):
    table = read_columns(run(MAPS, filled, FAST).folder / "sensitivity.parquet")
    similar, apart = table["similarity"].view(5, 12), table["distance"].view(5, 12)
    assert torch.allclose(similar[:2], torch.ones(2, 12, dtype=torch.float64), atol=1e-3), "the same noise is drawn"
    assert float(apart[0].abs().max()) == 0
    assert float(apart[1].max()) < 1e-3
    assert float(similar[2].max()) < 0.9
    assert float(apart[2].min()) > 0.01


def test_parts_are_read_coarse_maps_fit_and_few_are_shown(filled, tmp_path):
    shutil.copytree(filled.root, tmp_path / "store")
    store, task = Store(tmp_path / "store"), replace(MAPS, interpreter=CAM(), shown=2)
    with pytest.raises(Killed):
        run(task, store, FAST, Journal(die_at=(10, 12)))
    second = store.scratch(task) / "rows-0000005.safetensors"
    write_tensors(second, read_tensors(second) | {"sparsity": torch.full((5, 5), 7.0, dtype=torch.float64)})
    result = run(task, store, FAST)
    gini = read_columns(result.folder / "sensitivity.parquet")["sparsity"].view(5, 12)
    assert bool((gini[:, 5:10] == 7).all())
    assert bool((gini[:, :5] < 1).all())
    assert result.tensors("maps.safetensors")["maps"].shape == (5, 2, 7, 7)
    assert replace(MAPS, shown=0).shown == 0


def test_by_default_it_is_the_papers_smooth_grad():
    method = Sensitivity(network=SMALL, data=DATA, transforms=()).interpreter
    assert method == SmoothGrad(inner=Gradient(score="log_probability"), samples=100, noise_level=0.1)
