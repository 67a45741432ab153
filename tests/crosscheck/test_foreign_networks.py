"""Hugging Face's vision models, and timm's where it imports, through adapt(): scores, maps, derivatives, attacks.

Built from small configurations with random weights; nothing is downloaded.
"""

import importlib
import json
import sys
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from pellucid.attacks import AAI, PGD
from pellucid.cli import main
from pellucid.interpreters import GradCAM, GradCAMPlusPlus, Gradient, GuidedBackprop, IntegratedGradients, SmoothGrad
from pellucid.models import Classifier, adapt
from pellucid.rng import Stream, global_seed

Y = torch.tensor([1, 2])
SIZES = {"vit": (32, 48), "swin": (64, 64), "resnet": (64, 96), "convnext": (64, 96)}
SITES = {
    "vit": "layer vit.layers.1 (chosen: the last that all scores depend on), tokens, 1 before a grid of 4x6",
    "swin": "tokens, 0 before a grid of 8x8",
    "resnet": "channels first, a grid of 8x12",
    "convnext": "channels first, a grid of 8x12",
}
CODE = """
import torch
from transformers.models.vit import ViTConfig, ViTForImageClassification
def vit():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)
    return ViTForImageClassification(ViTConfig(**sizes, image_size=(32, 48), patch_size=8, num_labels=5))
"""


def built(name: str) -> nn.Module:
    """Return a small network of a family, with random weights that are the same every time."""
    pytest.importorskip("transformers", reason="the extra `peers` has transformers")
    from transformers.utils import logging

    logging.set_verbosity_error()
    made: dict[str, Any] = {
        "vit": lambda: _vit(),
        "swin": lambda: _swin(),
        "resnet": lambda: _resnet(),
        "convnext": lambda: _convnext(),
    }
    with global_seed(0):
        network: nn.Module = made[name]()
    return network.eval()


def _vit() -> nn.Module:
    from transformers.models.vit import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=(32, 48), patch_size=8, num_labels=5))


def _swin() -> nn.Module:
    from transformers.models.swin import SwinConfig, SwinForImageClassification

    sizes = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
    return SwinForImageClassification(SwinConfig(**sizes, image_size=64, patch_size=4, num_labels=5))


def _resnet() -> nn.Module:
    from transformers.models.resnet import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=5))


def _convnext() -> nn.Module:
    from transformers.models.convnext import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, num_labels=5)
    )


@pytest.fixture(params=list(SIZES))
def case(request) -> tuple[str, nn.Module, Classifier, Tensor]:
    module = built(request.param)
    x = Stream(1).uniform(torch.empty(2, 0), (3, *SIZES[request.param]))
    return request.param, module, adapt(module, mean=0.5, std=0.5), x


def test_logits_are_the_modules_own(case):
    _, module, network, x = case
    with torch.no_grad():
        torch.testing.assert_close(network(x), module((x - 0.5) / 0.5).logits)


def test_every_kind_of_map(case):
    name, _, network, x = case
    both = torch.stack([Y, (Y + 1) % 5], 1)
    for method in (Gradient(), IntegratedGradients(steps=4), SmoothGrad(samples=3)):
        maps = method(network, x, both)
        assert maps.shape == (2, 2, *x.shape[1:])
        assert bool((maps.abs().amax((2, 3, 4)) > 0).all())
    site = GradCAM().site(network, x)
    assert SITES[name] in str(site)
    for method in (GradCAM(relu=False), GradCAMPlusPlus(relu=False)):
        maps = method(network, x, both)
        assert maps.shape == (2, 2, site.layout.height, site.layout.width)
        assert bool((maps.abs().amax((2, 3)) > 0).all())
        alone = method(network, x[1:], both[1:])
        torch.testing.assert_close(alone, maps[1:], rtol=1e-4, atol=1e-6)
    if name == "resnet":
        assert float(GuidedBackprop()(network, x, Y).abs().max()) > 0


def test_maps_are_differentiable_again_also_through_attention(case):
    _, module, _, x = case
    network, x = adapt(module.double(), mean=0.5, std=0.5), (0.2 + 0.6 * x.double()).requires_grad_(True)
    for method in (Gradient(score="cross_entropy"), GradCAM(relu=False)):
        (slope,) = torch.autograd.grad(method(network, x, Y, create_graph=True).square().sum(), x)
        assert float(slope.abs().max()) > 0
        step = 1e-7 * Stream(2).normal(x.detach())  # a longer one crosses kinks of ReLU
        ends = [method(network, x.detach() + sign * step, Y).square().sum() for sign in (1, -1)]
        numeric, exact = float(ends[0] - ends[1]) / 2, float((slope * step).sum())
        assert numeric == pytest.approx(exact, rel=1e-3, abs=1e-15)


def test_grad_cam_reads_the_output_of_the_whole_body(case):
    """On networks whose scores are a linear map of the pooled last map, up to a normalisation, in their own words."""
    name, module, network, x = case
    if name == "vit":
        pytest.skip("its scores are read off the class token")
    caught: list[Tensor] = []
    body = module.get_submodule({"swin": "swin.layernorm", "resnet": "resnet", "convnext": "convnext.encoder"}[name])
    tensor = {"swin": lambda out: out, "resnet": lambda out: out[0], "convnext": lambda out: out[0]}[name]
    handle = body.register_forward_hook(lambda _module, _inputs, output: caught.append(tensor(output)))
    both = torch.stack([Y, (Y + 1) % 5], 1)
    logits = module((x - 0.5) / 0.5).logits
    handle.remove()
    (last,) = caught
    for column in (0, 1):
        (slope,) = torch.autograd.grad(logits.gather(1, both[:, column, None]).sum(), last, retain_graph=True)
        tokens, slopes = (t.flatten(2).mT if t.ndim == 4 else t for t in (last, slope))
        expected = (slopes.mean(1, keepdim=True) * tokens).sum(2).detach()
        found = GradCAM(relu=False)(network, x, both)[:, column].flatten(1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_of_no_image_there_is_no_map(case):
    _, _, network, x = case
    site = GradCAM().site(network, x)
    for method in (Gradient(), IntegratedGradients(steps=2), SmoothGrad(samples=2)):
        assert method(network, x[:0], Y[:0]).shape == x[:0].shape
    for method in (GradCAM(), GradCAMPlusPlus()):
        assert method(network, x[:0], Y[:0]).shape == (0, site.layout.height, site.layout.width)
    assert PGD(eps=0.05, steps=1)(network, x[:0], Y[:0]).shape == x[:0].shape


FAMILIES = {
    "deit": ("DeiT", "deit", {"image_size": (32, 48), "patch_size": 8}, (32, 48), "tokens, 2 before a grid of 4x6"),
    "registers": (
        "Dinov2WithRegisters", "dinov2_with_registers", {"image_size": 48, "patch_size": 8}, (48, 48),
        "tokens, 5 before a grid of 6x6",
    ),
    "dinov2": ("Dinov2", "dinov2", {"image_size": 48, "patch_size": 8}, (48, 64), "tokens, 1 before a grid of 6x8"),
    "beit": ("Beit", "beit", {"image_size": 32, "patch_size": 8}, (32, 32), "tokens, 1 before a grid of 4x4"),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_before_the_patches_are_told_apart(family):
    pytest.importorskip("transformers", reason="the extra `peers` has transformers")
    from transformers.utils import logging

    logging.set_verbosity_error()
    name, place, more, size, said = FAMILIES[family]
    home = importlib.import_module(f"transformers.models.{place}")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 5}
    with global_seed(0):
        module = getattr(home, f"{name}ForImageClassification")(getattr(home, f"{name}Config")(**sizes, **more)).eval()
    network, x = adapt(module, mean=0.5, std=0.5), Stream(1).uniform(torch.empty(2, 0), (3, *size))
    site = GradCAM().site(network, x)
    assert str(site.layout) == said
    maps = GradCAM(relu=False)(network, x, Y)
    assert maps.shape == (2, site.layout.height, site.layout.width)
    assert bool((maps.abs().amax((1, 2)) > 0).all())
    at_patch = (2, 32, site.layout.height, site.layout.width)  # where the patches were made they lie as a grid
    with torch.no_grad():
        first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
        assert first((x - 0.5) / 0.5).shape == at_patch


def test_the_command_line_explains_such_a_network(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers", reason="the extra `peers` has transformers")
    (tmp_path / "foreign_vit.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_vit", raising=False)
    Image.effect_noise((48, 32), 80).convert("RGB").save("photo.png")
    words = ["explain", "foreign_vit:vit", "photo.png", "model.mean=0.5", "model.std=0.5", "--json", "--quiet"]
    code = main([*words, "--interpreters", "gradient,grad_cam", "--store", str(tmp_path / "store")])
    said = capsys.readouterr()
    assert code == 0, said.err
    told = json.loads(said.out)
    assert told["interpreters"] == ["gradient", "grad_cam"]
    assert [SITES["vit"] in decision for decision in told["decisions"]] == [True]
    found = load_file(told["arrays"])
    network, x = adapt(sys.modules.pop("foreign_vit").vit().eval(), mean=0.5, std=0.5), found["clean"]
    assert x.shape == (1, 3, 32, 48)
    torch.testing.assert_close(found["probabilities_clean"], network(x).softmax(1).detach(), rtol=0, atol=1e-6)
    maps = GradCAM()(network, x, found["targets"])
    torch.testing.assert_close(found["maps_1_clean"], maps, rtol=1e-4, atol=1e-7)


def test_labels_and_maps_can_be_attacked(case):
    _, _, network, x = case
    for attack in (PGD(eps=0.05, steps=2), AAI(interpreter=GradCAM(relu=False), eps=0.05, steps=2)):
        moved = (attack(network, x, Y) - x).abs().amax()
        assert 0.01 < float(moved) <= 0.05 + 1e-6


def test_timms_networks_where_it_imports():
    timm = pytest.importorskip("timm", reason="timm imports torchvision, which must match torch", exc_type=ImportError)
    x = Stream(1).uniform(torch.empty(2, 0), (3, 64, 64))
    for name, more in (("resnet18", {}), ("vit_tiny_patch16_224", {"img_size": 64}), ("convnext_atto", {})):
        with global_seed(0):
            module = timm.create_model(name, pretrained=False, num_classes=5, **more).eval()
        network = adapt(module, mean=0.5, std=0.5)
        with torch.no_grad():
            torch.testing.assert_close(network(x), module((x - 0.5) / 0.5))
        assert float(GradCAM(relu=False)(network, x, Y).abs().max()) > 0
        assert float(IntegratedGradients(steps=3)(network, x, Y).abs().max()) > 0
