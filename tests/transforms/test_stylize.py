"""AdaIN by hand, the networks, and the transformation with weights and styles from files."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pellucid.data import Digits
from pellucid.errors import CheckpointError, DataError, InputError, SpecError
from pellucid.maths.edges import luma
from pellucid.rng import Stream, global_seed
from pellucid.spec import digest, from_dict, to_dict
from pellucid.store import write_tensors
from pellucid.transforms import Stylize, stylize
from pellucid.transforms.adain import Stylizer, adain, continued, moments, refined, stylised
from pellucid.transforms.autoencoder import CompactStylizer, compact_stylizer, note
from pellucid.transforms.stylize import FITTED

STYLES = Digits(train=40, validation=10, test=10)


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(n, height, width, seed=0):
    return numbers(n, 3, height, width, seed=seed).float()


def write_compact(path, width=4, levels=2, seed=0):
    with global_seed(seed):
        network = CompactStylizer(width, levels)
    state = {key: 2 * value for key, value in network.state_dict().items()}  # images with some contrast
    about = {"width": width, "levels": levels, "called": "AdaIN, compact autoencoder fitted on nothing"}
    write_tensors(path, state, note(about))
    return path


@pytest.fixture
def file(tmp_path):
    return write_compact(tmp_path / "stylizer.safetensors")


@pytest.fixture
def paintings(tmp_path):
    """A folder of three paintings, a file that is no image, and one that is cut off."""
    folder = tmp_path / "paintings"
    folder.mkdir()
    for number, size in enumerate([(40, 24), (24, 24), (30, 50)]):
        pixels = (255 * numbers(size[1], size[0], 3, seed=number)).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "4.png").write_text("no image")
    return folder


class Identity(Stylizer):
    """Features are the pixels: what AdaIN then does to images is known."""

    stride = 1

    def features(self, images):
        return (images,)

    def decode(self, features):
        return features[0]


# ------------------------------------------------------------------------------------------------ the formula


def test_adain_is_equation_8_with_the_authors_variance():
    c, s = numbers(2, 3, 4, 5), numbers(2, 3, 6, 2, seed=1)
    found, t = adain(c, s).numpy(), np.empty((2, 3, 4, 5))
    for n in range(2):
        for k in range(3):
            a, b = c[n, k].numpy(), s[n, k].numpy()
            std_a, std_b = (np.sqrt(v.var(ddof=1) + 1e-5) for v in (a, b))
            t[n, k] = std_b * (a - a.mean()) / std_a + b.mean()
    np.testing.assert_allclose(found, t, atol=1e-12)
    np.testing.assert_allclose(adain(c, s, 0.25).numpy(), 0.25 * t + 0.75 * c.numpy(), atol=1e-12)
    torch.testing.assert_close(adain(c, s, 0.0), c)


def test_adain_gives_the_styles_moments_and_keeps_its_own():
    c, s = numbers(2, 3, 8, 8), 3 * numbers(2, 3, 8, 8, seed=1) - 1
    mean, deviation = moments(adain(c, s))
    wanted_mean, wanted_deviation = moments(s)
    torch.testing.assert_close(mean, wanted_mean)
    torch.testing.assert_close(deviation, wanted_deviation, rtol=1e-3, atol=0)
    torch.testing.assert_close(adain(c, c), c)


def test_adain_refuses_other_shapes():
    with pytest.raises(InputError, match="as many channels"):
        adain(numbers(2, 3, 4, 4), numbers(2, 4, 4, 4))
    with pytest.raises(InputError, match="got 3 for 2"):
        adain(numbers(2, 3, 4, 4), numbers(3, 3, 4, 4))
    with pytest.raises(InputError, match="single position"):
        adain(numbers(2, 3, 1, 1), numbers(2, 3, 4, 4))


def test_images_are_continued_by_reflection_to_multiples():
    x = numbers(1, 1, 5, 7)
    found = continued(x, 8)
    assert found.shape == (1, 1, 16, 16)
    padded = np.pad(x[0, 0].numpy(), ((0, 11), (0, 9)), mode="reflect")
    np.testing.assert_array_equal(found[0, 0].numpy(), padded)
    assert torch.equal(continued(numbers(1, 1, 16, 8), 4), numbers(1, 1, 16, 8))
    assert continued(numbers(1, 1, 1, 1), 8).unique().numel() == 1


def test_stylised_moves_pixels_where_features_are_pixels():
    content, style = 0.25 + numbers(5, 3, 6, 7) / 8, 0.4 + numbers(5, 3, 9, 9, seed=1) / 8
    torch.testing.assert_close(stylised(Identity(), content, style, batch_size=2), adain(content, style))
    torch.testing.assert_close(stylised(Identity(), content, style[:1], 0.5, 2), adain(content, style[:1], 0.5))
    assert stylised(Identity(), content[:0], style[:1]).shape == (0, 3, 6, 7)
    for images, styles in ((content, style[:2]), (content[:, :1], style), (content, style[:, :1])):
        with pytest.raises(InputError, match="RGB images"):
            stylised(Identity(), images, styles)


# ------------------------------------------------------------------------------------------------ the compact network


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_compact_stylizer_is_read_as_it_was_written(tmp_path, levels):
    path = write_compact(tmp_path / "s", levels=levels, seed=3)
    network, x = compact_stylizer(path), numbers(2, 3, 16, 12).float()
    with global_seed(3):
        fresh = CompactStylizer(4, levels)
    fresh.load_state_dict({key: 2 * value for key, value in fresh.state_dict().items()})
    pixels, *maps = network.features(x)
    assert torch.equal(pixels, x)
    assert [tuple(level.shape[1:]) for level in maps] == [(4, 16, 12), (8, 8, 6), (16, 4, 3)][-levels:]
    assert network.decode(network.features(x)).shape == x.shape
    torch.testing.assert_close(network.decode(network.features(x)), fresh.decode(fresh.features(x)))
    assert not any(p.requires_grad for p in network.parameters())


@torch.no_grad()
def test_a_compact_stylizer_gives_the_colours_mean_and_deviation(file):
    network, x, style = compact_stylizer(file), 0.4 + pictures(3, 16, 16) / 5, 0.45 + pictures(3, 20, 20, seed=1) / 10
    target = [adain(a, b) for a, b in zip(network.features(x), network.features(style))]
    for found, wanted in zip(moments(network.decode(target)), moments(style)):
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0)  # but for the 1e-5 in the variances
    assert (network.decode(target) - target[0]).abs().max() > 0.01  # more than matched colours
    silent = CompactStylizer(4, 2)
    silent.decoder[-1][-1].weight.zero_()
    target = [adain(a, b) for a, b in zip(silent.features(x), silent.features(style))]
    torch.testing.assert_close(silent.decode(target), target[0], rtol=1e-3, atol=1e-4)


def test_files_that_hold_no_compact_stylizer_are_refused(tmp_path, file):
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="does not say which stylizer"):
        compact_stylizer(tmp_path / "other")
    write_tensors(tmp_path / "wrong", CompactStylizer(5, 2).state_dict(), note({"width": 4, "levels": 2}))
    with pytest.raises(CheckpointError, match=r"of another network: decoder.0.0.bias is \(20,\)"):
        compact_stylizer(tmp_path / "wrong")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        compact_stylizer(tmp_path / "cut")


# ------------------------------------------------------------------------------------------------ the transformation


def test_each_image_takes_the_style_that_the_stream_draws_for_it(file):
    transform, x = Stylize(styles=STYLES, weights=str(file), batch_size=3), numbers(7, 3, 16, 16)
    rng = Stream(5, torch.tensor([4, 9, 0, 4, 77, 3, 1]))
    rows = transform.chosen(x, rng)
    assert rows[0] == rows[3]
    assert len(set(rows.tolist())) > 3
    styles = STYLES.load("train").images(rows).double().expand(-1, 3, -1, -1)
    torch.testing.assert_close(transform(x, rng=rng), transform.with_styles(x, styles))
    network = compact_stylizer(file).double()
    torch.testing.assert_close(transform.with_styles(x, styles), stylised(network, x, styles))
    first = transform.with_styles(x, styles[:1])
    assert (first[0] - transform(x, rng=rng)[0]).abs().max() < 1e-9
    other = next(place for place, row in enumerate(rows) if row != rows[0])
    assert (first[other] - transform(x, rng=rng)[other]).abs().max() > 1e-4


def test_alpha_goes_from_the_decoded_image_to_the_whole_style(file):
    x, network = numbers(3, 3, 16, 16), compact_stylizer(file).double()
    none, half, whole = (Stylize(styles=STYLES, weights=str(file), alpha=a, refine=0)(x) for a in (0, 0.5, 1))
    torch.testing.assert_close(none, network.decode(network.features(x)).clamp(0, 1))
    assert (half - none).abs().max() > 1e-4
    assert (half - whole).abs().max() > 1e-4


def style_loss(network, images, styles):
    pairs = zip(network.features(images), network.features(styles))
    moved = [(moments(a), moments(b)) for a, b in pairs]
    return sum(((m - M) ** 2 + (s - S) ** 2).mean((1, 2, 3)) / (S**2).mean((1, 2, 3)) for (m, s), (M, S) in moved)


@torch.no_grad()
def test_refining_lowers_the_style_loss_of_every_image_and_leaves_what_has_it(file):
    network, x, styles = compact_stylizer(file).double(), numbers(4, 3, 16, 16), numbers(4, 3, 24, 24, seed=1) ** 3
    wanted = [moments(maps) for maps in network.features(styles)]
    plain, better = (stylised(network, x, styles, refine=steps) for steps in (0, 40))
    assert torch.equal(stylised(network, x, styles), better)  # 40 are the network's own
    torch.testing.assert_close(refined(network, plain, wanted, 0), plain)
    assert (style_loss(network, better, styles) < 0.8 * style_loss(network, plain, styles)).all()
    same = [moments(maps) for maps in network.features(x)]
    torch.testing.assert_close(refined(network, x, same, 20), x)
    alone = refined(network, plain[2:3], [(m[2:3], s[2:3]) for m, s in wanted], 5)
    torch.testing.assert_close(alone[0], refined(network, plain, wanted, 5)[2])


def test_a_refining_step_by_hand():
    x, mean, deviation = torch.tensor([[[[0.2, 0.6]]]]).expand(1, 3, 1, 2), 0.5, math.sqrt(0.08 + 1e-5)
    wanted = [(torch.full((1, 3, 1, 1), mean), torch.full((1, 3, 1, 1), deviation))]  # 0.1 brighter, contrast alike
    loss = 0.1**2 / deviation**2
    found = refined(Identity(), x, wanted, 1)
    torch.testing.assert_close(found, x + 0.04 * math.sqrt(loss) / 2, rtol=1e-4, atol=1e-6)  # v = g / (2 rms)


def test_everything_works_where_nothing_is_recorded(file):
    transform, x = Stylize(styles=STYLES, weights=str(file), refine=2), numbers(2, 3, 8, 8)
    expected = transform(x)
    stylize._loaded.cache_clear()
    with torch.inference_mode():
        assert torch.equal(transform(x.clone()), expected)
        assert torch.equal(transform.with_styles(x, x.flip(0)), transform.with_styles(x, x.flip(0)))
    assert torch.equal(transform(x), expected)
    assert not expected.requires_grad


def test_grey_images_are_stylised_in_colour_and_given_back_as_luma(file):
    transform, x = Stylize(styles=STYLES, weights=str(file)), numbers(3, 1, 10, 9)
    torch.testing.assert_close(transform(x)[:, 0], luma(transform(x.expand(-1, 3, -1, -1))))
    with pytest.raises(InputError, match="not 2 channels"):
        transform(numbers(3, 2, 8, 8))


def test_a_folder_of_paintings_unreadable_ones_left_out(file, paintings, tmp_path):
    transform = Stylize(styles=str(paintings), weights=str(file))
    split = transform.styles.load("train")
    assert len(split) == 3
    assert split.shape == (3, 224, 224)
    assert len(split.skipped) == 2
    assert transform.chosen(numbers(50, 3, 4, 4)).unique().tolist() == [0, 1, 2]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="holds neither"):
        Stylize(styles=str(tmp_path / "nothing"), weights=str(file))
    with pytest.raises(DataError, match="does not exist"):
        Stylize(styles="/nowhere/at all", weights=str(file))


def test_content_counts_and_places_do_not(file, paintings, tmp_path):
    one = Stylize(styles=str(paintings), weights=str(file))
    moved, elsewhere = tmp_path / "moved.safetensors", tmp_path / "elsewhere"
    moved.write_bytes(file.read_bytes())
    paintings.rename(elsewhere)
    assert digest(Stylize(styles=str(elsewhere), weights=str(moved))) == digest(one)
    assert from_dict(to_dict(one)) == one  # read where nothing of it is
    with pytest.raises(DataError):
        one(numbers(1, 3, 8, 8))
    (elsewhere / "2.png").unlink()
    assert digest(Stylize(styles=str(elsewhere), weights=str(moved))) != digest(one)
    changed = from_dict(to_dict(one) | {"styles": {"data": "style_images", "path": str(elsewhere)}})
    with pytest.raises(DataError, match="not those that were described"):
        changed(numbers(1, 3, 8, 8))
    write_compact(moved, seed=9)
    assert digest(Stylize(styles=STYLES, weights=str(moved))) != digest(Stylize(styles=STYLES, weights=str(file)))


def test_weights_that_are_not_those_described_are_refused(file):
    transform = Stylize(styles=STYLES, weights=str(file))
    again = Stylize(styles=STYLES, weights=str(file), sha256=transform.sha256)
    write_compact(file, seed=1)
    with pytest.raises(CheckpointError, match="not the file it was"):
        again(numbers(1, 3, 8, 8))
    with pytest.raises(CheckpointError, match="no weights file"):
        Stylize(styles=STYLES, weights="nowhere.safetensors")


def test_part_and_folder_data_say_which_paintings(file):
    held = Stylize(styles=STYLES, part="test", weights=str(file))
    assert held.styles_sha256 == STYLES.load("test").sha256
    assert digest(held) != digest(Stylize(styles=STYLES, weights=str(file)))
    assert isinstance(from_dict({"transform": "stylize", "styles": "digits", "weights": str(file)}).styles, Digits)
    with pytest.raises(SpecError, match="styles"):
        Stylize(styles="no_such_data", weights=str(file))


def test_either_files_or_a_task(file):
    with pytest.raises(SpecError, match="needs either weights"):
        Stylize(styles=STYLES)
    from pellucid.tasks import FitStylizer, Train

    fit = FitStylizer(content=STYLES, styles=STYLES, steps=2)
    with pytest.raises(SpecError, match="needs either weights"):
        Stylize(styles=STYLES, weights=str(file), fitted=fit)
    train = Train(data=STYLES, model=from_dict("small_cnn", "model"), steps=1)
    with pytest.raises(SpecError, match="fit_stylizer"):
        Stylize(styles=STYLES, fitted=train)
    waiting = Stylize(styles=STYLES, fitted=fit)
    with pytest.raises(SpecError, match="waits for its task"):
        waiting(numbers(1, 3, 8, 8))
    file.rename(file.parent / FITTED)
    ready = waiting.opened(file.parent)
    assert ready.fitted is None
    assert torch.equal(ready(numbers(2, 3, 8, 8)), Stylize(styles=STYLES, weights=str(file))(numbers(2, 3, 8, 8)))


def test_it_says_which_stylizer_it_is(file):
    transform = Stylize(styles=STYLES, weights=str(file))
    wanted = "AdaIN, compact autoencoder fitted on nothing, 40 refining steps (a stand-in for VGG-19), weights sha256 "
    assert transform.stylizer_name == wanted + transform.sha256[:12]
    assert Stylize(styles=STYLES, weights=str(file), refine=40) == transform  # a default that changes is another digest
    assert ", 3 refining steps (a stand-in" in Stylize(styles=STYLES, weights=str(file), refine=3).stylizer_name
