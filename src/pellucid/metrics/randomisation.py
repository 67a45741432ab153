"""Whether a saliency map depends on what the network learned: its layers are randomised and the maps compared."""

import copy
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_labels, frozen
from pellucid.metrics.maps import cosine, kendall_tau, spearman
from pellucid.metrics.statistics import Interval, bootstrap_mean
from pellucid.protocols import Interpreter
from pellucid.rng import Stream, derive, global_seed

Order = Literal["top_down", "bottom_up", "independent"]
Similarity = Literal["spearman", "kendall", "cosine"]
Weights = Literal["reinitialised", "redrawn"]


_SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman": spearman,
    "kendall": kendall_tau,
    "cosine": cosine,
}


class Randomisation(NamedTuple):
    """How alike maps stay when layers are randomised: per layer and image, and in sum; lower is better.

    layers: names, in the order in which they were randomised. similarity: float64 (L, N), NaN where undefined.
    overall: its mean over layers and images; final: its mean over images when the whole network is random, both with
    intervals over images. undefined: how many of the L N similarities were NaN. passed: the upper end of `final`
    (its value where one image has no interval) lies below the threshold.
    """

    layers: tuple[str, ...]
    similarity: Tensor
    overall: Interval
    final: Interval
    undefined: int
    passed: bool


def model_randomisation(
    model: nn.Module,
    interpreter: Interpreter,
    x: Tensor,
    target: Tensor,
    *,
    order: Order = "top_down",
    similarity: Similarity = "spearman",
    absolute: bool = False,
    weights: Weights = "reinitialised",
    threshold: float = 0.5,
    seed: int = 0,
    rng: Stream | None = None,
    batch_size: int = 100,
) -> Randomisation:
    """Return how alike a method's maps stay when the network's layers are randomised; lower is better.

    similarity_{l,n} = s(I(f, x_n, c_n), I(f_l, x_n, c_n)), f_l the network in which were randomised
    top_down: the layers from the logits down to layer l (cascading); bottom_up: those from the image up to l;
    independent: layer l alone. A map that stays as it was explains the image, not the network.

    x (N, C, H, W) in [0, 1], target (N,) -> see `Randomisation`; similarities lie in [-1, 1], NaN where a map is
    constant. A layer is a module that owns parameters; layers stand in the order in which the network calls them.
    weights "reinitialised": the module's own reset_parameters (running statistics of batch norm start anew with it),
    and a redraw where it has none; "redrawn": each tensor from a normal distribution of its own mean and standard
    deviation, which keeps the size of activations but leaves constant tensors (biases of 0) as they are.
    absolute: the magnitudes of maps are compared. threshold: what `passed` asks for, a convention of ours; the paper
    names none (maps that were multiplied by the image share its zeros whatever the weights, and rank alike on dark
    backgrounds: look at the layers, not at the verdict alone). seed draws the weights, rng the interpreter's own
    noise, the same before and after. A deep copy is randomised, on its own device; the caller's network is left as it
    was.
    Raises InputError for networks without parameters or that cannot be copied, and for images and labels that are
    none. Source: Adebayo et al. 2018, section 3 (parameter randomisation test, cascading and independent; weights
    initialised anew, which is the default here). Deviations: the paper reports SSIM and HOG beside Spearman's rank
    correlation, and does not have bottom_up and "redrawn".

    >>> from pellucid.interpreters import Gradient
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> result = model_randomisation(network, Gradient(), torch.rand(2, 3, 2, 2), torch.tensor([0, 2]))
    >>> result.layers, result.similarity.shape
    (('1',), torch.Size([1, 2]))
    """
    _check_choices(order, similarity, weights)
    x = check_images(x).detach()
    target = check_labels(target, len(x), what="targets", single=True)
    alike, rng = _SIMILARITIES[similarity], rng or Stream()

    def maps_of(network: nn.Module) -> Tensor:
        rows = torch.arange(len(x), device=x.device)
        parts = [interpreter(network, x[i], target[i], rng=rng.take(i)) for i in batches(rows, batch_size)]
        maps = torch.cat(parts).detach().flatten(1) if parts else x.flatten(1)
        return maps.abs() if absolute else maps

    before = maps_of(model)
    names = layers_in_order(model, x)
    names = names[::-1] if order == "top_down" else names
    states = _randomised(model, names, order, weights, seed)
    found = torch.stack([alike(before, maps_of(network)) for network in states])
    return _summary(names, found[: len(names)], found[-1], threshold)


def _check_choices(order: str, similarity: str, weights: str) -> None:
    for name, value, choices in (
        ("order", order, Order),
        ("similarity", similarity, Similarity),
        ("weights", weights, Weights),
    ):
        if value not in get_args(choices):
            raise InputError(f"{name} must be one of {', '.join(get_args(choices))}; got {value!r}")


def _summary(names: tuple[str, ...], similarity: Tensor, last: Tensor, threshold: float) -> Randomisation:
    per_image = similarity.nanmean(0)
    overall = bootstrap_mean(per_image[~per_image.isnan()])
    final = bootstrap_mean(last[~last.isnan()])
    upper = final.value if final.high != final.high else final.high
    return Randomisation(names, similarity, overall, final, int(similarity.isnan().sum()), upper < threshold)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"the network cannot be copied, and is not randomised in place ({why})") from None


def layers_in_order(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Return the names of the modules that own parameters, in the order in which the network first calls them.

    One that is not called as a module (its weights are used by another) stands where the module around it does.
    x (N, C, H, W): one image is passed through a copy. Raises InputError for networks without parameters.

    >>> layers_in_order(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)), torch.rand(1, 1, 2, 2))
    ('1', '2')
    """
    network, called = _copied(model), dict[str, int]()
    modules = dict(network.named_modules())
    owners = [name for name, module in modules.items() if any(True for _ in module.parameters(recurse=False))]
    if not owners:
        raise InputError("the network has no parameters: there is nothing to randomise")

    def listen(name: str) -> Callable[[nn.Module, object], None]:
        def note(module: nn.Module, inputs: object) -> None:
            called.setdefault(name, len(called))

        return note

    for name, module in modules.items():
        module.register_forward_pre_hook(listen(name))
    with frozen(network), torch.no_grad():
        network(x[:1] if len(x) else x.new_zeros((1, *x.shape[1:])))

    def place(name: str) -> int:
        while name and name not in called:
            name = name.rpartition(".")[0]
        return called[name]

    return tuple(sorted(owners, key=place))  # stable: those of one place as they were registered


def _randomised(
    model: nn.Module, names: tuple[str, ...], order: Order, weights: Weights, seed: int
) -> Iterator[nn.Module]:
    """Yield a copy of the network for each layer; the last one that is yielded is random throughout."""
    network = _copied(model)
    for name in names:
        if order == "independent":
            network = _copied(model)
        _randomise(network.get_submodule(name), name, weights, seed)
        yield network
    if order == "independent" and len(names) > 1:
        network = _copied(model)
        for name in names:
            _randomise(network.get_submodule(name), name, weights, seed)
        yield network


@torch.no_grad()
def _randomise(module: nn.Module, name: str, weights: Weights, seed: int) -> None:
    """Overwrite what a module itself owns; what its children own is theirs."""
    fresh = copy.deepcopy(module).cpu()  # drawn on the CPU, so that all devices get the same weights
    anew = getattr(fresh, "reset_parameters", None) or getattr(fresh, "_reset_parameters", None)
    if weights == "redrawn" or not callable(anew):
        for own, values in module.named_parameters(recurse=False):
            normal = Stream(derive(seed, "layer", name, own)).normal(values.double().reshape(1, -1)).view_as(values)
            values.copy_(values.double().mean() + values.double().std(correction=0) * normal)
        return
    with global_seed(derive(seed, "layer", name)):
        anew()
    drawn = dict(fresh.named_parameters(recurse=False)) | dict(fresh.named_buffers(recurse=False))
    for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        tensor.copy_(drawn[own])
