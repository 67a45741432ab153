"""Who maps what in the races of interpreters: networks, images, and one function for each contender."""

import importlib.util
from collections.abc import Callable

import torch
from races import Contender, Race
from torch import Tensor, nn
from torch.nn import functional

from pellucid.interpreters import GradCAM, GradCAMPlusPlus, Gradient, GuidedBackprop, IntegratedGradients, SmoothGrad
from pellucid.metrics import deletion, kendall_tau
from pellucid.models import Classifier, SmallCNN
from pellucid.rng import Stream, global_seed

STEPS, SAMPLES = 50, 100
CAPTUM = importlib.util.find_spec("captum") is not None
TORCHVISION = importlib.util.find_spec("torchvision") is not None
ZENNIT = importlib.util.find_spec("zennit") is not None
# quantus imports zennit where it is installed, which needs torchvision
QUANTUS = importlib.util.find_spec("quantus") is not None and (TORCHVISION or not ZENNIT)


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.second, self.other_norm = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        same = stride == 1 and width == out
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False))
        self.relu, self.other_relu = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        out = self.other_norm(self.second(self.relu(self.norm(self.first(x)))))
        return self.other_relu(out + self.shortcut(x))


class ResNet18(Classifier):
    """ResNet-18 for 32x32 images (3x3 stem, four groups of two blocks), of half the usual width."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__(mean=0.5, std=0.25, channels=3)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        for group in range(4):
            before = width * 2 ** max(group - 1, 0)
            layers += [Block(before, width * 2**group, 1 if group == 0 else 2)]
            layers += [Block(width * 2**group, width * 2**group, 1)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(8 * width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the last map."""
        out: Tensor = self.body(x)
        return out


def built(which: str, device: str) -> Classifier:
    """Return an untrained network, the same every time."""
    with global_seed(0):
        network = SmallCNN().build(3, (32, 32), 10) if which == "small" else ResNet18()
    return network.to(device).eval()


def images(n: int, side: int, device: str) -> tuple[Tensor, Tensor]:
    """Return random images and classes."""
    like = torch.empty(n, 0, device=device)
    return Stream(1).uniform(like, (3, side, side)), Stream(2).integers(like, 10)


def race(which: str, n: int, contenders: dict[str, Contender], device: str, note: str = "", side: int = 32) -> Race:
    """Return a race of maps on one of the networks."""
    x, y = images(n, side, device)
    return Race(which, built(which, device), x, y, contenders, note=note)


def integrated(which: str, n: int, device: str) -> Race:
    """Integrated gradients, midpoints, equal steps."""
    ours = {"pellucid": lambda net, x, y: IntegratedGradients(steps=STEPS)(net, x, y)}
    return race(which, n, ours | (captum_integrated() if CAPTUM else {}), device, f"{STEPS} midpoints, N = {n}")


def captum_integrated() -> dict[str, Contender]:
    """Return captum as it is by default, and with chunks as large as ours."""
    from captum.attr import IntegratedGradients as Theirs

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = Theirs(net).attribute(x, target=y, n_steps=STEPS, method="riemann_middle")
        return found

    def chunked(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        size = max(128, len(x))
        found: Tensor = Theirs(net).attribute(
            x, target=y, n_steps=STEPS, method="riemann_middle", internal_batch_size=size
        )
        return found

    return {"captum, all at once (default)": plain, "captum, internal_batch_size=128": chunked}


def smooth(which: str, n: int, device: str) -> Race:
    """SmoothGrad of the plain gradient."""
    ours = {"pellucid": lambda net, x, y: SmoothGrad(inner=Gradient(), samples=SAMPLES)(net, x, y)}
    note = f"{SAMPLES} samples, N = {n}; the random numbers differ by design"
    return race(
        which,
        n,
        ours | (captum_smooth() if CAPTUM else {}) | (zennit_smooth() if ZENNIT and TORCHVISION else {}),
        device,
        note,
    )


def captum_smooth() -> dict[str, Contender]:
    """Return captum's noise tunnel, all samples at once."""
    from captum.attr import NoiseTunnel, Saliency

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        tunnel = NoiseTunnel(Saliency(net))
        found: Tensor = tunnel.attribute(
            x.clone().requires_grad_(True), nt_type="smoothgrad", nt_samples=SAMPLES, stdevs=0.1, target=y, abs=False
        )
        return found

    return {"captum NoiseTunnel, all at once (default)": plain}


def zennit_smooth() -> dict[str, Contender]:
    """Return zennit's loop over samples."""
    from zennit.attribution import SmoothGrad as Theirs

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with Theirs(net, noise_level=0.1, n_iter=SAMPLES) as attributor:
            found: Tensor = attributor(x, functional.one_hot(y, 10).to(x))[1]
        return found

    return {"zennit": plain}


def grad_cam(which: str, n: int, side: int, device: str) -> Race:
    """GradCAM at the last map, without ReLU."""
    ours = {"pellucid": lambda net, x, y: GradCAM(relu=False)(net, x, y)}
    return race(which, n, ours | (captum_grad_cam() if CAPTUM else {}), device, f"{n}x3x{side}x{side}", side)


def captum_grad_cam() -> dict[str, Contender]:
    """Return captum at the layer that gives the last map."""
    from captum.attr import LayerGradCam

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        inner = getattr(net, "inner", net)
        layer = inner.body if isinstance(inner, ResNet18) else inner.convolutions[-1]
        found: Tensor = LayerGradCam(net, layer).attribute(x, target=y)
        return found[:, 0]

    return {"captum": plain}


def grad_cam_plus_plus(which: str, n: int, device: str) -> Race:
    """GradCAM++ has no peer here; beside GradCAM it shows what its weights cost."""
    ours = {"pellucid": lambda net, x, y: GradCAMPlusPlus()(net, x, y)}
    beside = {"pellucid GradCAM": lambda net, x, y: GradCAM()(net, x, y)}
    return race(which, n, ours | beside, device, "captum has none; grad-cam needs torchvision and was not run")


def guided(which: str, n: int, device: str) -> Race:
    """Guided backpropagation."""
    ours = {"pellucid": lambda net, x, y: GuidedBackprop()(net, x, y)}
    return race(which, n, ours | (captum_guided() if CAPTUM else {}), device, f"N = {n}")


def captum_guided() -> dict[str, Contender]:
    """Return captum, which changes modules by hooks."""
    from captum.attr import GuidedBackprop as Theirs

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = Theirs(net).attribute(x.clone().requires_grad_(True), target=y)
        return found

    return {"captum": plain}


def tau(n: int, positions: int, device: str) -> Race:
    """Kendall's tau of maps."""
    from scipy import stats

    x = Stream(3).normal(torch.empty(n, 0, device=device), (2, 1, positions))

    def looped(_net: nn.Module, maps: Tensor, _y: Tensor) -> Tensor:
        pairs = zip(maps[:, 0, 0].cpu().numpy(), maps[:, 1, 0].cpu().numpy())
        return torch.tensor([float(stats.kendalltau(a, b).statistic) for a, b in pairs], dtype=torch.float64)

    ours = {"pellucid": lambda _net, maps, _y: kendall_tau(maps[:, 0], maps[:, 1])}
    labels = torch.zeros(n, dtype=torch.int64, device=device)
    return Race(
        "tau", nn.Identity(), x, labels, ours | {"scipy in a loop": looped}, note=f"{n} pairs of {positions} positions"
    )


def flipping(n: int, device: str) -> Race:
    """Deletion of pixels in the order of a map."""

    def ours(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        maps = x.sum(1)
        return deletion(net, x, y, maps, pixels_per_step=32).curve[:, 1:]

    contenders: dict[str, Contender] = {"pellucid": ours}
    if QUANTUS:
        contenders["quantus PixelFlipping"] = quantus_flipping
    return race("small", n, contenders, device, "32 of 1,024 pixels a step to black, probability of the class")


def quantus_flipping(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return Quantus' curve at the same pixels."""
    import numpy as np
    import quantus

    metric = quantus.PixelFlipping(
        features_in_step=32, perturb_baseline=0.0, abs=False, normalise=False, disable_warnings=True
    )
    arrays = {"x_batch": x.cpu().numpy(), "y_batch": y.cpu().numpy(), "a_batch": x.sum(1, keepdim=True).cpu().numpy()}
    found = metric(model=net, device=str(x.device), channel_first=True, softmax=True, **arrays)
    return torch.tensor(np.array(found))


RACES: dict[str, Callable[[str], Race]] = {
    "integrated gradients, Small, N=32": lambda device: integrated("small", 32, device),
    "integrated gradients, ResNet-18, N=32": lambda device: integrated("resnet", 32, device),
    "integrated gradients, ResNet-18, N=1": lambda device: integrated("resnet", 1, device),
    "smooth grad, Small, N=32": lambda device: smooth("small", 32, device),
    "smooth grad, ResNet-18, N=8": lambda device: smooth("resnet", 8, device),
    "smooth grad, ResNet-18, N=1": lambda device: smooth("resnet", 1, device),
    "grad cam, ResNet-18, 8x3x96x96": lambda device: grad_cam("resnet", 8, 96, device),
    "grad cam, ResNet-18, 32x3x32x32": lambda device: grad_cam("resnet", 32, 32, device),
    "grad cam plus plus, ResNet-18": lambda device: grad_cam_plus_plus("resnet", 32, device),
    "guided backprop, ResNet-18": lambda device: guided("resnet", 32, device),
    "tau, 200x49": lambda device: tau(200, 49, device),
    "tau, 100x784": lambda device: tau(100, 784, device),
    "deletion, Small": lambda device: flipping(32, device),
}
