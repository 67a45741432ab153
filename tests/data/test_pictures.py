"""Pictures without labels: found, ordered, named, and taken as viewers show them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.data import Digits, Encoded, Folder, Pictures, assemble, pictures
from pellucid.errors import DataError, SpecError
from pellucid.spec import from_dict, to_dict

from .writing import fill, picture, pixels_of

PARTS = ("train", "validation", "test")


def write(folder, *names, mode="RGB", size=(6, 5)):
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed, mode, size, form="JPEG" if name.lower().endswith("jpg") else "PNG"))
    return folder


def test_one_file(tmp_path):
    file = write(tmp_path, "me.png") / "me.png"
    split = Pictures(path=str(file)).load("test")
    assert torch.equal(split.pixels[0], torch.from_numpy(pixels_of(file.read_bytes()).copy()))
    assert (split.labelled, split.labels.tolist(), split.classes) == (False, [0], ("unlabelled",))
    assert (split.names, split.shape) == (("me.png",), (3, 6, 5))


def test_a_folder_is_searched_through_in_the_order_of_the_paths(tmp_path):
    write(tmp_path, "b.png", "a/z.png", "a/deep/er.JPG", "c.png", ".hidden.png", ".cache/x.png")
    (tmp_path / "notes.txt").write_text("words")
    split = Pictures(path=str(tmp_path)).load("test")
    assert split.names == ("a/deep/er.JPG", "a/z.png", "b.png", "c.png")
    wanted = [pixels_of((tmp_path / name).read_bytes()) for name in split.names]
    assert (split.pixels.numpy() == np.stack(wanted)).all()
    assert split.labels.tolist() == [0] * 4


def test_every_part_is_all_of_them_and_says_so(tmp_path):
    write(tmp_path, "a.png", "b.png")
    splits = {part: Pictures(path=str(tmp_path)).load(part) for part in PARTS}
    assert {split.sha256 for split in splits.values()} == {splits["test"].sha256}
    for part, split in splits.items():
        assert split.part == part
        assert split.cut == "all 2 pictures in the order of their paths, the same for every part"
    assert splits["train"].pixels is splits["test"].pixels
    with pytest.raises(DataError, match="train, validation and test"):
        Pictures(path=str(tmp_path)).load("all")


def test_the_first_ones(tmp_path):
    write(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "c.png").write_bytes(b"broken")  # not asked for
    split = Pictures(path=str(tmp_path), limit=2).load("test")
    assert split.names == ("a.png", "b.png")
    assert split.cut.startswith("the first 2 of: all 3 pictures")
    with pytest.raises(DataError, match="has 3 images, 4 were asked for"):
        Pictures(path=str(tmp_path), limit=4).load("test")
    with pytest.raises(DataError, match="has 1 images, 2 were asked for"):
        Pictures(path=str(tmp_path / "a.png"), limit=2).load("test")


@pytest.mark.parametrize(("modes", "channels"), [(("L", "L"), 1), (("L", "RGB"), 3)])
def test_channels_are_those_of_the_pictures(tmp_path, modes, channels):
    for i, mode in enumerate(modes):
        (tmp_path / f"{i}.png").write_bytes(picture(i, mode))
    assert Pictures(path=str(tmp_path)).load("test").shape == (channels, 6, 5)
    for wanted in (1, 3, "1", "3"):
        assert Pictures(path=str(tmp_path), channels=wanted).load("test").shape[0] == int(wanted)


@pytest.mark.parametrize("channels", [2, 0, "two", True])
def test_other_channels_are_refused(channels):
    with pytest.raises(SpecError, match="channels"):
        Pictures(path="x", channels=channels)


def test_pictures_of_unequal_sizes_need_a_size(tmp_path):
    write(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(picture(1, size=(8, 4)))
    with pytest.raises(DataError, match=r"b\.png is 8x4, .*a\.png is 6x5: give size=HEIGHT,WIDTH"):
        Pictures(path=str(tmp_path)).load("test")
    assert Pictures(path=str(tmp_path), size=(7, 9)).load("test").pixels.shape == (2, 3, 7, 9)


def test_crop_keeps_proportions_and_takes_the_centre(tmp_path):
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 255
    Image.fromarray(wide).save(tmp_path / "a.png")
    crop = Pictures(path=str(tmp_path), size=(4, 4), fit="crop").load("test").pixels
    stretch = Pictures(path=str(tmp_path), size=(4, 4)).load("test").pixels
    assert int(crop.min()) == 255
    assert int(stretch.min()) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_cameras_that_were_turned(tmp_path, orientation):
    upright = np.zeros((16, 24), dtype=np.uint8)
    upright[:8, :8] = 255  # bright top left, wide
    stored = _as_a_camera_stores(upright, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100)
    for size in (None, (16, 24)):
        pixels = Pictures(path=str(tmp_path), size=size).load("test").pixels
        assert pixels.shape == (1, 1, 16, 24)
        assert (torch.from_numpy(upright).int() - pixels[0, 0].int()).abs().max() < 10


def _as_a_camera_stores(upright, orientation):
    """By the table of the EXIF standard: which side of the scene row 0 and column 0 of the file are."""
    return {
        1: upright,  # row 0 is the top, column 0 the left side
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.T,  # left, top
        6: upright[:, ::-1].T,  # right, top
        7: upright[::-1, ::-1].T,  # right, bottom
        8: upright[::-1].T,  # left, bottom
    }[orientation]


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    split = Pictures(path=str(tmp_path)).load("test")
    assert split.pixels[0, :, 0].T.tolist() == [[200, 0, 0], [255, 255, 255], [244, 204, 204]]


def test_a_grey_picture_with_transparency_stays_grey(tmp_path):
    Image.fromarray(np.array([[[100, 255], [100, 0]]], dtype=np.uint8), "LA").save(tmp_path / "a.png")
    assert Pictures(path=str(tmp_path)).load("test").pixels.tolist() == [[[[100, 255]]]]


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=1)
    assert Pictures(path=str(tmp_path)).load("test").pixels[0, :, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_animations_show_their_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert Pictures(path=str(tmp_path)).load("test").pixels[0, :, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("cut", [0, 20, 60])
def test_unreadable_files_are_named(tmp_path, cut):
    write(tmp_path, "a.png", "b.png", size=(30, 30))
    (tmp_path / "b.png").write_bytes(picture(1, size=(30, 30))[:cut])
    with pytest.raises(DataError, match=r"b\.png is (not a readable image|truncated or corrupt)"):
        Pictures(path=str(tmp_path)).load("test")


def test_broken_exif_data_do_not_matter(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.jpg", exif=b"Exif\x00\x00nonsense", quality=100)
    assert Pictures(path=str(tmp_path)).load("test").shape == (3, 4, 4)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has more than 8 bits per value"):
        Pictures(path=str(tmp_path)).load("test")


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"neither a file nor a folder .*nowhere"):
        Pictures(path=str(tmp_path / "nowhere")).load("test")
    with pytest.raises(DataError, match=r"holds no images \(bmp, gif, jpeg,"):
        Pictures(path=str(tmp_path)).load("test")
    (tmp_path / "drawing.svg").write_text("<svg/>")
    with pytest.raises(DataError, match=r"drawing\.svg' is not called like an image .*: convert or rename it"):
        Pictures(path=str(tmp_path / "drawing.svg")).load("test")
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(DataError, match=r"words\.png is not a readable image"):
        Pictures(path=str(tmp_path / "words.png")).load("test")


def test_a_changed_file_is_read_again(tmp_path):
    write(tmp_path, "a.png")
    before = Pictures(path=str(tmp_path)).load("test")
    assert Pictures(path=str(tmp_path)).load("test").pixels is before.pixels
    (tmp_path / "a.png").write_bytes(picture(5, size=(9, 9)))
    assert Pictures(path=str(tmp_path)).load("test").shape == (3, 9, 9)


def test_many_pictures_stay_encoded(tmp_path, monkeypatch):
    write(tmp_path, "a.png", "b.png")
    monkeypatch.setattr(assemble, "LIMIT", 100)
    pictures._load.cache_clear()
    split = Pictures(path=str(tmp_path)).load("test")
    assert isinstance(split.pixels, Encoded)
    assert (split.pixels[1].numpy() == pixels_of((tmp_path / "b.png").read_bytes())).all()


def test_folders_keep_pixels_as_they_are_stored(tmp_path):
    """What pictures do for people, data sets do not: their published pixels would change."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    for i in range(10):
        image = Image.new("RGBA", (4, 6), (200, i, 0, 0))
        buffer = io.BytesIO()
        image.save(buffer, "PNG", exif=exif)
        (tmp_path / "a" / f"{i}.png").write_bytes(buffer.getvalue())
    split = Folder(path=str(tmp_path)).load("train")
    assert split.shape == (3, 6, 4)
    assert int(split.pixels[:, 0].min()) == 200


def test_folders_say_whether_they_have_labels_and_name_their_files(tmp_path):
    write(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(10)))
    for labelled in (True, False):
        split = Folder(path=str(tmp_path), labelled=labelled).load("train")
        assert split.labelled is labelled
        wanted = [pixels_of((tmp_path / name).read_bytes()) for name in split.names]
        assert (split.pixels.numpy() == np.stack(wanted)).all()
        assert split.labels.tolist() == [labelled * "ab".index(name[0]) for name in split.names]


def test_sets_without_files_of_their_own_have_no_names(tmp_path):
    fill(tmp_path, "train", 10)
    for labelled in (True, False):
        split = Folder(path=str(tmp_path), labelled=labelled).load("train")
        assert (split.labelled, split.names, split.masks) == (labelled, None, None)
    digits = Digits(test=5).load("test")
    assert (digits.labelled, digits.names, digits.masks) == (True, None, None)


def test_the_description_goes_through_json():
    one = Pictures(path="photos", size=(224, 224), fit="crop", channels=3, limit=5)
    assert from_dict(to_dict(one)) == one
    words = {"data": "pictures", "path": "photos", "size": "224,224", "fit": "crop", "channels": "3", "limit": "5"}
    assert from_dict(words) == one


def test_pictures_that_are_not_those_described_are_refused(tmp_path):
    write(tmp_path, "a.png")
    meant = Pictures(path=str(tmp_path), sha256=Pictures(path=str(tmp_path)).load("test").sha256)
    assert meant.load("test").names == ("a.png",)
    (tmp_path / "a.png").write_bytes(picture(9, size=(6, 5)))
    with pytest.raises(DataError, match="are not those that were described"):
        meant.load("test")
