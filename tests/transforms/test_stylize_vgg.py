"""VGG-19 in the public files' names, against PyTorch's own sequences."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pellucid.data import Digits
from pellucid.errors import CheckpointError
from pellucid.metrics import gram_distance
from pellucid.rng import global_seed
from pellucid.transforms import Stylize
from pellucid.transforms.adain import stylised
from pellucid.transforms.vgg import VGGFeatures, vgg_stylizer
from pellucid.weights import content_digest

STYLES = Digits(train=6, validation=2, test=2)
BELOW = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool", 512)
ABOVE = (256, "up", 256, 256, 256, 128, "up", 128, 64, "up", 64, 3)


def sequence(plan, channels, first=()):
    """Return the public port's network: pad, convolution, ReLU, one after the other, each with a number of its own."""
    layers = list(first)
    for part in plan:
        if part == "pool":
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        elif part == "up":
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        else:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, part, 3), nn.ReLU()]
            channels = part
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def port():
    with global_seed(0):
        encoder = sequence(BELOW, 3, [nn.Conv2d(3, 3, 1)])
        decoder = sequence(ABOVE, 512)[:-1]
        for layer in (*encoder, *decoder):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    return encoder.eval(), decoder.eval()


@pytest.fixture(scope="module")
def files(port, tmp_path_factory):
    """The encoder with a layer above relu4_1 in torch.save's form, the decoder as safetensors."""
    folder = tmp_path_factory.mktemp("vgg")
    above = {"32.weight": torch.zeros(512, 512, 3, 3), "32.bias": torch.zeros(512)}
    torch.save(port[0].state_dict() | above, folder / "vgg_normalised.pth")
    save_file(port[1].state_dict(), folder / "decoder.safetensors")
    return str(folder / "vgg_normalised.pth"), str(folder / "decoder.safetensors")


def pictures(n, height, width):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(4))


def test_names_and_numbers_are_the_ports(port):
    assert "29.weight" in port[0].state_dict()
    assert "28.bias" in port[1].state_dict()
    network, content, style = vgg_stylizer(port[0].state_dict(), port[1].state_dict()), *pictures(2, 32, 24)[:, None]
    with torch.no_grad():
        c, s = port[0](content), port[0](style)
        torch.testing.assert_close(network.features(content)[0], c)
        deviations = [(maps.var((2, 3), keepdim=True) + 1e-5).sqrt() for maps in (c, s)]
        t = deviations[1] * (c - c.mean((2, 3), keepdim=True)) / deviations[0] + s.mean((2, 3), keepdim=True)
        wanted = port[1](t)
        assert wanted.min() < 0 or wanted.max() > 1 or wanted.std() > 0
    torch.testing.assert_close(stylised(network, content, style), wanted.clamp(0, 1), rtol=1e-4, atol=1e-4)


def test_the_transformation_reads_both_files_and_says_so(files):
    transform = Stylize(styles=STYLES, weights=files[0], decoder=files[1])
    assert transform.sha256 == content_digest(files[0])
    assert transform.decoder_sha256 == content_digest(files[1])
    named = f"weights sha256 {transform.sha256[:12]} and {transform.decoder_sha256[:12]}"
    assert transform.stylizer_name == f"AdaIN, VGG-19 relu4_1, {named}"
    x = pictures(2, 20, 13)
    found = transform(x)
    assert found.shape == x.shape
    assert (found - x).abs().max() > 0.01


def test_files_of_other_networks_are_refused(port, files):
    encoder, decoder = (part.state_dict() for part in port)
    with pytest.raises(CheckpointError, match=r"the encoder decoder is of another network: 0.bias is missing"):
        vgg_stylizer(decoder, decoder, ("decoder", "decoder"))
    wrong = encoder | {"5.weight": torch.zeros(64, 64, 1, 1)}
    with pytest.raises(CheckpointError, match=r"5.weight is \(64, 64, 1, 1\) in the file, \(64, 64, 3, 3\)"):
        vgg_stylizer(wrong, decoder)
    short = {key: value for key, value in decoder.items() if key != "28.bias"}
    with pytest.raises(CheckpointError, match=r"28.bias is missing"):
        vgg_stylizer(encoder, short)
    with pytest.raises(CheckpointError, match="takes the normalised VGG"):
        vgg_stylizer({"features.0.weight": torch.zeros(64, 3, 3, 3)}, decoder)
    with pytest.raises(CheckpointError, match="does not say which stylizer"):
        Stylize(styles=STYLES, weights=files[1])(pictures(1, 16, 16))
    with pytest.raises(CheckpointError, match="does not say which stylizer"):
        Stylize(styles=STYLES, weights=files[0])(pictures(1, 16, 16))


def test_torchvisions_vgg_measures():
    plan, layers = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool", 512, 512), []
    channels = 3
    with global_seed(1):
        for part in plan:
            if part == "pool":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, part, 3, padding=1), nn.ReLU()]
                channels = part
    features = nn.Sequential(*layers)
    table = {f"features.{key}": value for key, value in features.state_dict().items()}
    network, x = VGGFeatures(table | {"classifier.0.weight": torch.zeros(3)}), pictures(2, 16, 24)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        found = network(x)
        for name, last in (("relu1_1", 1), ("relu2_1", 6), ("relu3_1", 11), ("relu4_1", 20)):
            torch.testing.assert_close(found[name], features[: last + 1]((x - mean) / std))
    assert list(gram_distance(network, x, x[:1])) == list(network.layers)
    with pytest.raises(CheckpointError, match=r"19.bias is missing"):
        VGGFeatures({key: value for key, value in table.items() if key != "features.19.bias"})
