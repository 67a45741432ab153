"""Who maps what in the races of interpreters: networks, images, and one function for each contender."""

import contextlib
import copy
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import torch
from races import Contender, Race
from torch import Tensor, nn
from torch.nn import functional

from pellucid.interpreters import GradCAM, GradCAMPlusPlus, Gradient, GuidedBackprop, IntegratedGradients, SmoothGrad
from pellucid.maths.streaming import chunk_for
from pellucid.metrics import deletion, kendall_tau
from pellucid.models import Classifier, SmallCNN
from pellucid.rng import Stream, global_seed

STEPS, SAMPLES, PER_STEP = 50, 100, 64
CAPTUM, ZENNIT, QUANTUS = (importlib.util.find_spec(name) is not None for name in ("captum", "zennit", "quantus"))


@contextlib.contextmanager
def stand_in_torchvision() -> Iterator[None]:
    """Let zennit (which Quantus imports) take two class names from torchvision where that is not installed."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
    modules = {name: ModuleType(name) for name in names}
    for above, name in itertools.pairwise(names):
        setattr(modules[above], name.rpartition(".")[2], modules[name])
    for name in ("BasicBlock", "Bottleneck"):
        setattr(modules[names[-1]], name, type(name, (), {}))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


with stand_in_torchvision():
    zennit = importlib.import_module("zennit.attribution") if ZENNIT else None
    quantus = importlib.import_module("quantus") if QUANTUS else None


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
    """Return an untrained network, the same every time.

    Its biases are drawn, since without any a Small network has the same gradient all along a path from black, and
    every quadrature agrees with every other.
    """
    with global_seed(0):
        network = SmallCNN().build(3, (32, 32), 10) if which == "small" else ResNet18()
        for name, values in network.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(values, std=0.1)
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
    """Integrated gradients, equal steps."""
    ours = {"pellucid": lambda net, x, y: IntegratedGradients(steps=STEPS)(net, x, y)}
    note = f"{STEPS} midpoints, N = {n}; captum's default has Gauss-Legendre points, zennit right ends: other maps"
    return race(which, n, ours | captum_integrated() | zennit_integrated(), device, note)


def captum_integrated() -> dict[str, Contender]:
    """Return captum as it is by default, and with our midpoints, in chunks as large as ours."""
    if not CAPTUM:
        return {}
    from captum.attr import IntegratedGradients as Theirs

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = Theirs(net).attribute(x, target=y, n_steps=STEPS)
        return found

    def chunked(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        size = max(chunk_for(x), len(x))
        found: Tensor = Theirs(net).attribute(
            x, target=y, n_steps=STEPS, method="riemann_middle", internal_batch_size=size
        )
        return found

    return {"captum, all at once (default)": plain, "captum, our points, chunks as ours": chunked}


def zennit_integrated() -> dict[str, Contender]:
    """Return zennit's loop over steps."""
    if zennit is None:
        return {}

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with zennit.IntegratedGradients(net, n_iter=STEPS) as attributor:
            found: Tensor = attributor(x, functional.one_hot(y, 10).to(x))[1]
        return found

    return {"zennit": plain}


def smooth(which: str, n: int, device: str) -> Race:
    """SmoothGrad of the plain gradient; a second run of ours shows what other random numbers change."""
    method = SmoothGrad(inner=Gradient(), samples=SAMPLES)
    ours = {"pellucid": lambda net, x, y: method(net, x, y)}
    again = {"pellucid, another seed": lambda net, x, y: method(net, x, y, rng=Stream(5))} if which == "small" else {}
    note = f"{SAMPLES} samples, N = {n}; noise of 0.1 (captum's is not scaled by the image's range, here close to 1)"
    return race(which, n, ours | again | captum_smooth() | zennit_smooth(), device, note)


def captum_smooth() -> dict[str, Contender]:
    """Return captum's noise tunnel, all samples at once, and in chunks as large as ours."""
    if not CAPTUM:
        return {}
    from captum.attr import NoiseTunnel, Saliency

    def tunnel(net: nn.Module, x: Tensor, y: Tensor, size: int | None) -> Tensor:
        found: Tensor = NoiseTunnel(Saliency(net)).attribute(
            x.clone().requires_grad_(True),
            nt_type="smoothgrad",
            nt_samples=SAMPLES,
            nt_samples_batch_size=size,
            stdevs=0.1,
            target=y,
            abs=False,
        )
        return found

    return {
        "captum NoiseTunnel, all at once (default)": lambda net, x, y: tunnel(net, x, y, None),
        "captum NoiseTunnel, chunks as ours": lambda net, x, y: tunnel(net, x, y, max(1, chunk_for(x) // len(x))),
    }


def zennit_smooth() -> dict[str, Contender]:
    """Return zennit's loop over samples."""
    if zennit is None:
        return {}

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with zennit.SmoothGrad(net, noise_level=0.1, n_iter=SAMPLES) as attributor:
            found: Tensor = attributor(x, functional.one_hot(y, 10).to(x))[1]
        return found

    return {"zennit": plain}


def grad_cam(which: str, n: int, side: int, device: str) -> Race:
    """GradCAM at the last map, without ReLU."""
    ours = {"pellucid": lambda net, x, y: GradCAM(relu=False)(net, x, y)}
    note = "without ReLU; the package grad-cam imports torchvision, which is not here, and was not run"
    return race(which, n, ours | captum_grad_cam(), device, note, side)


def captum_grad_cam() -> dict[str, Contender]:
    """Return captum at the layer that gives the last map."""
    if not CAPTUM:
        return {}
    from captum.attr import LayerGradCam

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        inner = getattr(net, "inner", net)
        layer = inner.body if isinstance(inner, ResNet18) else inner.convolutions[-1]
        found: Tensor = LayerGradCam(net, layer).attribute(x, target=y)
        return found[:, 0]

    return {"captum": plain}


def grad_cam_plus_plus(which: str, n: int, side: int, device: str) -> Race:
    """GradCAM++ has no peer here; beside captum's GradCAM, of the same passes, it shows what its weights cost."""
    ours = {"pellucid": lambda net, x, y: GradCAMPlusPlus()(net, x, y)}
    theirs = {f"{who}'s GradCAM": contender for who, contender in captum_grad_cam().items()}
    return race(which, n, ours | theirs, device, "beside captum's GradCAM, another map: captum has no GradCAM++", side)


def guided(which: str, n: int, device: str) -> Race:
    """Guided backpropagation."""
    ours = {"pellucid": lambda net, x, y: GuidedBackprop()(net, x, y)}
    return race(which, n, ours | captum_guided(), device, f"N = {n}")


def captum_guided() -> dict[str, Contender]:
    """Return captum, which changes modules by hooks."""
    if not CAPTUM:
        return {}
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
    """Deletion of values in the order of a map: the image itself."""

    def ours(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return deletion(net, x, y, x, pixels_per_step=PER_STEP, unit="value").curve[:, 1:]

    contenders: dict[str, Contender] = {"pellucid": ours} | ({} if quantus is None else {"quantus": quantus_flipping})
    note = f"PixelFlipping, N = {n}: {PER_STEP} of 3,072 values a step to black, 48 steps, probability of the class"
    return race("small", n, contenders, device, note)


def quantus_flipping(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return Quantus' curve."""
    if x.dtype == torch.float64:  # its networks take single precision
        net = copy.deepcopy(net).float()
    metric = quantus.PixelFlipping(
        features_in_step=PER_STEP, perturb_baseline=0.0, abs=False, normalise=False, disable_warnings=True
    )
    images, labels = x.float().cpu().numpy(), y.cpu().numpy()
    arrays = {"x_batch": images, "y_batch": labels, "a_batch": images}
    found = metric(model=net, device=str(x.device), channel_first=True, softmax=True, **arrays)
    return torch.tensor(np.array(found)).to(x.device, torch.float64)


RACES: dict[str, Callable[[str], Race]] = {
    "integrated gradients, Small, N=32": lambda device: integrated("small", 32, device),
    "integrated gradients, Small, N=1": lambda device: integrated("small", 1, device),
    "integrated gradients, ResNet-18, N=32": lambda device: integrated("resnet", 32, device),
    "integrated gradients, ResNet-18, N=1": lambda device: integrated("resnet", 1, device),
    "smooth grad, Small, N=32": lambda device: smooth("small", 32, device),
    "smooth grad, Small, N=1": lambda device: smooth("small", 1, device),
    "smooth grad, ResNet-18, N=8": lambda device: smooth("resnet", 8, device),
    "smooth grad, ResNet-18, N=1": lambda device: smooth("resnet", 1, device),
    "grad cam, ResNet-18, 8x3x96x96": lambda device: grad_cam("resnet", 8, 96, device),
    "grad cam, ResNet-18, 32x3x32x32": lambda device: grad_cam("resnet", 32, 32, device),
    "grad cam plus plus, ResNet-18, 8x3x96x96": lambda device: grad_cam_plus_plus("resnet", 8, 96, device),
    "grad cam plus plus, ResNet-18, 32x3x32x32": lambda device: grad_cam_plus_plus("resnet", 32, 32, device),
    "guided backprop, ResNet-18": lambda device: guided("resnet", 32, device),
    "tau, 200x49": lambda device: tau(200, 49, device),
    "tau, 100x784": lambda device: tau(100, 784, device),
    "deletion, Small": lambda device: flipping(32, device),
}
