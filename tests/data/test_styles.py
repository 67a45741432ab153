"""Style images: any folder of paintings."""

import io

import numpy as np
import pytest
from PIL import Image

from pellucid.data import StyleImages
from pellucid.errors import DataError

from .writing import picture, write


def painting(path, height, width, form="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(height * width, size=(height, width), form=form))
    return Image.open(path).convert("RGB")


def test_the_largest_centre_square_is_resized(tmp_path):
    wide = painting(tmp_path / "train" / "1.png", 30, 50)
    high = painting(tmp_path / "train" / "2.png", 41, 24)
    square = painting(tmp_path / "a" / "deep" / "0.png", 20, 20)
    split = StyleImages(path=str(tmp_path), size=20).load("train")
    assert split.shape == (3, 20, 20)
    assert split.names == ("deep/0.png", "train/1.png", "train/2.png")
    assert not split.labelled
    crops = [square, wide.crop((10, 0, 40, 30)), high.crop((0, 8, 24, 32))]
    for pixels, crop in zip(split.pixels, crops):
        resized = np.asarray(crop.resize((20, 20), Image.Resampling.BILINEAR))
        assert np.array_equal(pixels.numpy(), resized.transpose(2, 0, 1))


def test_small_and_unreadable_paintings_are_left_out_and_named(tmp_path):
    painting(tmp_path / "a.jpg", 60, 40, "JPEG")
    painting(tmp_path / "b.jpg", 60, 39, "JPEG")
    painting(tmp_path / "c.jpg", 64, 64, "JPEG")
    (tmp_path / "c.jpg").write_bytes((tmp_path / "c.jpg").read_bytes()[:900])
    (tmp_path / "d.png").write_bytes(b"html")
    (tmp_path / "notes.txt").write_text("no image")
    split = StyleImages(path=str(tmp_path), size=8, least=40).load("test")
    assert split.names == (f"{tmp_path.name}/a.jpg",)
    said = [name.removeprefix(f"{tmp_path}/") for name in split.skipped]
    assert said == ["b.jpg (60x39, smaller than 40)", "c.jpg (not readable: OSError)", "d.png (not readable)"]
    assert "all 1 images" in split.cut
    assert "3 images left out" in split.cut
    assert len(StyleImages(path=str(tmp_path), size=8).load("test")) == 2


def test_unreadable_paintings_are_refused_when_told_to(tmp_path):
    painting(tmp_path / "a.jpg", 60, 40, "JPEG")
    painting(tmp_path / "b.jpg", 60, 39, "JPEG")
    data = StyleImages(path=str(tmp_path), size=8, least=40, unreadable="refuse")
    assert len(data.load("test")) == 1
    (tmp_path / "d.png").write_bytes(b"html")
    with pytest.raises(DataError, match=r"d\.png is not a readable image"):
        data.load("test")


def test_parquet_files_of_paintings(tmp_path):
    images = [picture(i, size=(9, 9)) for i in range(5)]
    write(tmp_path / "train-00000-of-00001.parquet", images[:3], None)
    write(tmp_path / "test-00000-of-00001.parquet", [images[3], b"", images[4]], None)
    split = StyleImages(path=str(tmp_path), size=9).load("validation")
    wanted = [np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1) for data in images]
    assert np.array_equal(split.pixels.numpy(), np.stack(wanted))
    assert len(split.skipped) == 1
    assert len(StyleImages(path=str(tmp_path), size=9, limit=2).load("train")) == 2


def test_what_is_no_folder_of_paintings_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        StyleImages(path=str(tmp_path / "nowhere")).load("train")
    with pytest.raises(DataError, match="holds neither images nor parquet files"):
        StyleImages(path=str(tmp_path)).load("train")
