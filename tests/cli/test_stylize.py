"""pellucid stylize: fit, apply, sheet, measure, and what they refuse."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pellucid.data import Digits
from pellucid.rng import global_seed
from pellucid.store import write_tensors
from pellucid.transforms import Stylize
from pellucid.transforms.autoencoder import CompactStylizer, note, told

FIT = (
    "stylize", "fit", "--content", "digits", "content.train=20", "--styles", "digits", "styles.train=12",
    "--steps", "2", "encoder_steps=1", "batch_size=2", "encoder_batch_size=4", "width=3", "size=16",
    "--quiet", "--threads", "1",
)  # fmt: skip


def picture(path, height, width, seed):
    pixels = (255 * torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))).byte().numpy()
    Image.fromarray(pixels).save(path)


@pytest.fixture
def here(place):
    """Two pictures, two paintings and a stylizer."""
    for folder in ("mine", "paintings"):
        (place / folder).mkdir()
        for number in range(2):
            picture(place / folder / f"{folder}{number}.png", 20, 28, number)
    with global_seed(0):
        network = CompactStylizer(3, 2)
    state = {key: 2 * value for key, value in network.state_dict().items()}  # pictures with some contrast
    write_tensors(place / "s.safetensors", state, note({"width": 3, "levels": 2, "called": "mine"}))
    return place


def test_fit_writes_a_file_that_says_what_it_is(say, place):
    told_by = say(*FIT, "--out", "fitted/s.safetensors", "--json").json()
    path = place / "fitted" / "s.safetensors"
    assert told_by["stylizer"] == str(path)
    assert told(path)["called"] == told_by["called"]
    assert told_by["called"] == "AdaIN, compact autoencoder fitted on digits and digits, 1 + 2 steps"
    again = say(*FIT, "--out", "fitted/s.safetensors")
    assert again.out.splitlines()[0] == told_by["called"]
    assert again.out.splitlines()[-1] == str(path)
    assert Stylize(styles=Digits(), weights=str(path)).sha256 == told_by["sha256"]


def test_apply_paints_a_folder_of_pictures(say, here):
    words = ("stylize", "apply", "mine", "--styles", "paintings", "--weights", "s.safetensors", "--style-size", "24")
    spoken = say(*words, "--out", "made", "--quiet")
    assert spoken.code == 0, spoken.err
    assert spoken.out.splitlines()[0].startswith("mine, 40 refining steps (a stand-in for VGG-19), weights sha256 ")
    assert sorted(path.name for path in (here / "made").iterdir()) == ["mine0.png", "mine1.png", "stylised.json"]
    made = np.asarray(Image.open(here / "made" / "mine1.png"))
    assert made.shape == (20, 28, 3)
    told_by = say(*words, "--out", "made", "--quiet", "--json").json()
    style = {"data": "style_images", "path": "paintings", "size": 24}
    from pellucid.spec import from_dict

    transform = from_dict({"transform": "stylize", "styles": style, "weights": "s.safetensors"}, "transform")
    painting = transform.styles.load("train").images(torch.tensor(told_by["styles"][1:2]))
    own = torch.from_numpy(np.asarray(Image.open(here / "mine" / "mine1.png")).copy()).permute(2, 0, 1)[None] / 255
    wanted = (255 * transform.with_styles(own, painting)[0]).round().permute(1, 2, 0).numpy()
    assert np.abs(made - wanted).max() <= 1


def test_alpha_is_a_field(say, here):
    words = ("stylize", "apply", "mine/mine0.png", "--styles", "paintings", "--weights", "s.safetensors", "--quiet")
    images = []
    for alpha in ("1", "0"):
        assert say(*words, f"alpha={alpha}", "--out", f"a{alpha}").code == 0
        images.append(np.asarray(Image.open(here / f"a{alpha}" / "mine0.png")).astype(int))
    assert np.abs(images[0] - images[1]).max() > 2


def test_sheet_is_a_picture_that_names_the_stylizer_beside_it(say, here):
    words = ("stylize", "sheet", "--data", "digits", "--styles", "digits", "styles.part=validation")
    spoken = say(*words, "--weights", "s.safetensors", "--images", "3", "--out", "sheet.png", "--json", "--quiet")
    said = spoken.json()
    assert Image.open(io.BytesIO((here / "sheet.png").read_bytes())).width > 300
    assert said["sheet"] == str(here / "sheet.png")
    assert said["stylizer"].startswith("mine, 40 refining steps (a stand-in")
    assert len(said["styles"]) == 3


def test_measure_prints_what_it_writes(say, here):
    words = ("stylize", "measure", "--data", "digits", "data.size=16,16", "--styles", "digits", "styles.test=2")
    words = tuple(word for word in words if word != "data.size=16,16")
    common = ("--weights", "s.safetensors", "--images", "3", "--painted", "test", "--out", "m.json", "--quiet")
    spoken = say(*words, *common)
    assert spoken.code == 0, spoken.err
    found = json.loads((here / "m.json").read_text())
    assert (found["images"], found["paintings"]) == (3, 2)
    left = found["random"]["left"]["stylised"]["value"]
    assert f"random: {left:.0%} of the distance are left" in spoken.out
    assert f"{found['edges']['stylised']['value']:.2f}" in spoken.out


def test_pictures_of_one_name_do_not_write_over_each_other(say, here):
    (here / "mine" / "sub").mkdir()
    for name, seed in (("a.png", 3), ("a.bmp", 4), ("sub/a.png", 5), ("sub-a.png", 6)):
        picture(here / "mine" / name, 20, 28, seed)
    words = ("stylize", "apply", "mine", "--styles", "paintings", "--weights", "s.safetensors", "--style-size", "24")
    said = say(*words, "refine=0", "--out", "made", "--quiet", "--json").json()
    assert said["images"] == len(list((here / "made").glob("*.png"))) == 6


def test_nothing_is_written_over_the_pictures_themselves(refused, here):
    words = ("stylize", "apply", "--styles", "paintings", "--weights", "s.safetensors", "--quiet", "--out", "mine")
    before = (here / "mine" / "mine0.png").read_bytes()
    for given in ("mine", "mine/mine0.png"):
        assert "the folder of the images themselves" in refused(*words, given)
    assert (here / "mine" / "mine0.png").read_bytes() == before


def test_paintings_are_measured_once(refused, say, here):
    """Every part of a plain folder is all of it."""
    words = ("stylize", "measure", "--data", "digits", "--styles", "paintings", "--style-size", "24", "refine=0")
    words += ("--weights", "s.safetensors", "--images", "2", "--quiet")
    assert "which would count more than once: name one part" in refused(*words)
    assert "2 images in the style of 2 paintings" in say(*words, "--painted", "test").out


def test_refusals(refused, here):
    paint = ("stylize", "apply", "--styles", "paintings", "--weights", "s.safetensors", "--quiet")
    assert "one path" in refused(*paint)
    assert "one path" in refused(*paint, "mine", "--data", "digits")
    assert "no weights file nowhere" in refused(
        "stylize", "apply", "mine", "--styles", "paintings", "--weights", "nowhere"
    )
    assert "there is no data called 'nothing'" in refused(
        "stylize", "apply", "mine", "--styles", "nothing", "--weights", "s.safetensors"
    )
    assert "there is no folder nowhere/ of paintings" in refused(
        "stylize", "apply", "mine", "--styles", "nowhere/", "--weights", "s.safetensors"
    )
    assert "stylize has no field" in refused(*paint, "mine", "beta=1")
    assert "belongs to nothing" in refused(*FIT, "mine")
    save_file({"a": torch.zeros(1)}, here / "other.safetensors")
    assert "does not say which stylizer" in refused(
        "stylize", "apply", "mine", "--styles", "paintings", "--weights", "other.safetensors", "--quiet"
    )
