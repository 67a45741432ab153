"""Letters over clutter: exact masks, fonts held out, images that depend on (seed, part, index) alone."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import label

from pellucid.data import Glyphs, fonts, glyphs, scene
from pellucid.errors import DataError, SpecError
from pellucid.rng import Stream, derive
from pellucid.spec import from_dict, to_dict

FEW = {"train": 60, "validation": 60, "test": 60}


def grown(masks):
    return F.max_pool2d(masks[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0


def pixels_of(image):
    return torch.from_numpy(scene.as_array(image)[..., 0].copy())


@pytest.mark.parametrize("part", FEW)
@pytest.mark.parametrize(("side", "colour"), [(28, False), (40, True)])
def test_what_a_part_looks_like(part, side, colour):
    split = Glyphs(side=side, colour=colour, **FEW).load(part)
    assert split.shape == (3 if colour else 1, side, side)
    assert (split.pixels.dtype, split.masks.dtype) == (torch.uint8, torch.bool)
    assert split.masks.shape == (60, side, side)
    assert (split.name, split.part, split.classes, split.labelled) == ("glyphs", part, tuple("ABCDEFGHIJ"), True)
    assert split.masks.flatten(1).sum(1).min() > side / 2  # no letter is lost
    border = torch.cat([split.masks[:, [0, -1]].flatten(1), split.masks[:, :, [0, -1]].flatten(1)], 1)
    assert not border.any()  # nor cut off


@pytest.mark.parametrize("part", FEW)
def test_without_clutter_and_noise_the_letter_alone_differs_from_the_gradient(part):
    split = Glyphs(clutter=0, noise=0, **FEW).load(part)
    stream = Stream(derive(0, "glyphs", part)).take(torch.arange(60))
    back, letter = scene.levels(stream.child("levels"), split.labels, 1)
    fine = scene.gradients(stream.child("gradient"), back, 28)[..., 0].numpy()
    empty = torch.stack(
        [torch.from_numpy(scene.as_array(Image.fromarray(grid).reduce(2))[..., 0].copy()) for grid in fine]
    )
    # the value says how much of a pixel the ink covers: more than half inside the mask, no more outside
    below, ink = empty.double(), letter[:, :, None].double()
    cover = (split.pixels[:, 0].double() - below) / (ink - below)
    outside = cover[~grown(split.masks)]  # hairlines would be here, corners end here
    assert outside.abs().max() < 1 / 8
    assert outside.count_nonzero() < 20
    assert cover[split.masks].min() > 0.5 - 1 / 40
    assert cover[~split.masks].max() < 0.5 + 1 / 40
    assert cover.min() > -1 / 40


def test_clutter_and_noise_do_not_move_the_letter():
    plain, full = (Glyphs(clutter=n, noise=v, test=60).load("test") for n, v in ((0, 0), (12, 0.1)))
    assert torch.equal(plain.masks, full.masks)
    assert torch.equal(plain.labels, full.labels)
    assert not torch.equal(plain.pixels, full.pixels)


def test_clutter_lies_below_the_letter_and_elsewhere():
    plain, full = (Glyphs(clutter=n, noise=0, side=56, test=100).load("test") for n in (0, 6))
    _, letter = scene.levels(Stream(derive(0, "glyphs", "test")).child("levels"), full.labels, 1)
    inner = F.avg_pool2d(full.masks[:, None].float(), 5, stride=1, padding=2)[:, 0] > 0.999  # covered wholly
    assert inner.count_nonzero() > 5000
    assert (full.pixels[:, 0].int() - letter[:, :, None])[inner].abs().max() <= 1
    changed = (plain.pixels.int() - full.pixels.int())[:, 0].abs() > 1
    assert 0.05 < changed[~full.masks].float().mean() < 0.3


def test_noise_has_the_asked_spread_and_no_bias():
    grey = torch.full((50, 1, 28, 28), 128, dtype=torch.uint8)
    values = scene.noisy(Stream(3), grey, 0.1).double() - 128
    assert abs(float(values.std()) - 25.5) < 0.3
    assert abs(float(values.mean())) < 0.4
    assert torch.equal(scene.noisy(Stream(3), grey, 0.0), grey)


def test_test_fonts_occur_in_no_other_part():
    parts = {part: set(glyphs.fonts_of(part)) for part in FEW}
    assert parts["train"] == parts["validation"]
    assert not parts["train"] & parts["test"]
    assert all(path.stem.startswith("cm") for path in parts["test"])
    families = {part: {fonts.family(path) for path in files} for part, files in parts.items()}
    assert not families["train"] & families["test"]
    assert min(map(len, parts.values())) >= 4
    assert "Computer Modern (" in Glyphs(**FEW).load("test").cut
    assert "Computer Modern is kept for test" in Glyphs(**FEW).load("train").cut


def test_only_fonts_with_letters_count():
    found = {path.stem for files in fonts.families().values() for path in files}
    assert {"DejaVuSans", "DejaVuSerif-Bold", "STIXGeneral", "cmr10", "cmtt10"} <= found
    assert not {name for name in found if "Sym" in name or "LastResort" in name or name in ("cmex10", "cmsy10")}
    folder = fonts.families()["DejaVu Sans"][0].parent
    assert not fonts.draws_letters(folder / "STIXSizOneSymReg.ttf")  # empty
    assert not fonts.draws_letters(folder / "LICENSE_DEJAVU")


def test_a_stamp_is_the_letter_with_an_empty_margin():
    path = fonts.families()["DejaVu Sans"][-1]
    for letter in "AJ":
        image = fonts.stamp(path, letter, 64)
        assert image.getbbox() == (2, 2, image.width - 2, image.height - 2)
        assert image.getextrema() == (0, 255)


def test_a_letter_that_is_not_moved_is_as_high_as_asked():
    ink = scene.letter(Image.new("L", (20, 40), 255), 40, (0.5, 0.5, 1.0, 0.5, 0.5))
    assert ink.point(lambda v: 255 * (v > 127)).getbbox() == (
        11,
        2,
        29,
        38,
    )  # 0.9 * 40 high, half as wide, centred


def test_fragments_are_no_whole_letters():
    stamp = Image.new("L", (40, 40), 255)
    for i in range(20):
        canvas = Image.new("L", (56, 56))
        u = Stream(i).uniform(torch.empty(1, 0), (8,))[0].tolist()
        scene.clutter(canvas, stamp, (255,), [0.0, 0.5, 0.5, *u[3:]])
        seen = pixels_of(canvas).count_nonzero()
        assert 0 < seen <= (0.28 * 56 + 1) ** 2  # a whole one has at least (0.5 * 56)^2
        left, top, right, bottom = canvas.getbbox()
        assert max(right - left, bottom - top) < 0.3 * 56


@pytest.mark.parametrize("part", FEW)
def test_a_limited_part_is_a_prefix(part):
    more, fewer = (Glyphs(**{part: n}).load(part) for n in (530, 37))  # 530: more than are drawn at once
    assert torch.equal(fewer.pixels, more.pixels[:37])
    assert torch.equal(fewer.masks, more.masks[:37])
    assert torch.equal(fewer.labels, more.labels[:37])
    assert fewer.cut.startswith("the first 37 of: ")


def test_parts_and_seeds_are_different_and_repeatable():
    def load(part, seed):
        return Glyphs(seed=seed, **FEW).load(part)

    assert load("train", 0) is load("train", 0)
    was = load("test", 7).sha256
    glyphs._load.cache_clear()
    assert load("test", 7).sha256 == was
    seen = {load(part, seed).sha256 for part in FEW for seed in (0, 1)}
    assert len(seen) == 6
    images = torch.cat([load(part, seed).masks.flatten(1) for part in FEW for seed in (0, 1)])
    assert len({bytes(row) for row in images.numpy()}) == 360  # no two letters alike


def test_random_state_of_torch_is_left_alone():
    glyphs._load.cache_clear()
    before = torch.get_rng_state()
    Glyphs(test=10).load("test")
    assert torch.equal(torch.get_rng_state(), before)


def test_every_ten_images_are_the_ten_letters():
    labels = glyphs._labels(Stream(5), 1003)
    assert torch.equal(labels[:1000].view(100, 10).sort(1).values, torch.arange(10).expand(100, 10))
    assert len({tuple(row) for row in labels[:1000].view(100, 10).tolist()}) > 95
    assert len(labels) == 1003


def test_labels_are_the_letters_drawn():
    """A and D have one hole, B has two, the others none: what is left to see of a letter in its mask alone."""
    split = Glyphs(side=64, clutter=0, noise=0, test=100).load("test")
    holes = [label(~mask)[1] - 1 for mask in split.masks.numpy()]  # pieces of the background, less the outside
    wanted = [{"A": 1, "B": 2, "D": 1}.get("ABCDEFGHIJ"[y], 0) for y in split.labels.tolist()]
    assert sum(found == n for found, n in zip(holes, wanted)) >= 97


def test_the_checksum_covers_the_masks():
    split = Glyphs(test=10).load("test")
    assert split.sha256 == glyphs.sha256_of(split.pixels, split.labels, split.masks)
    assert split.sha256 != glyphs.sha256_of(split.pixels, split.labels, ~split.masks)
    assert split.sha256 != glyphs.sha256_of(split.pixels, split.labels)


def test_masks_move_with_the_split():
    assert Glyphs(test=10).load("test").to("meta").masks.device.type == "meta"


def test_refusals_are_sentences():
    with pytest.raises(DataError, match=r"the test part of glyphs has 2,000 images, 2,001 were asked for"):
        Glyphs(test=2001).load("test")
    with pytest.raises(DataError, match=r"train, validation and test, not 'valid'"):
        Glyphs().load("valid")


@pytest.mark.parametrize(
    ("field", "value"),
    [("side", 8), ("side", 4000), ("noise", -0.1), ("noise", 2), ("clutter", 1000), ("train", 0), ("seed", -1)],
)
def test_silly_values_are_refused(field, value):
    with pytest.raises(SpecError, match=f"glyphs.{field}: "):
        Glyphs(**{field: value})


def test_the_description_goes_through_json():
    assert from_dict("glyphs", "data") == Glyphs()
    assert from_dict(to_dict(Glyphs(colour=True, side=64))) == Glyphs(colour=True, side=64)


def test_importing_the_data_sets_does_not_import_matplotlib():
    program = "import sys, pellucid.data; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
