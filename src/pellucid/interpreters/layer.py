"""The layer at which class activation maps by gradients look: which one, how it lies, its values with a graph above."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import check_logits
from pellucid.interpreters.layout import Kind, Layout, find_layout, unknown_layout
from pellucid.models.classifier import Classifier
from pellucid.models.layers import layer_of, outputs_of, run_with_leaf

log = logging.getLogger("pellucid.interpreters")


@dataclass(frozen=True)
class Site:
    """Where a map is read: the layer's name ("" is the network's own feature map) and how its output lies."""

    layer: str
    layout: Layout
    chosen: bool  # by looking, not by name or declaration

    def __str__(self) -> str:
        name = f"layer {self.layer}" if self.layer else "the last feature map"
        return f"{name}{' (chosen: the last that all scores depend on)' if self.chosen else ''}, {self.layout}"


@dataclass(frozen=True)
class Reading:
    """A layer's output as (N, D, h, w), the tensor to differentiate by (the same, as it lies), and the logits."""

    site: Site
    features: Tensor
    leaf: Tensor
    logits: Tensor


def read(model: nn.Module, x: Tensor, layer: str | None, kind: Kind | None, create_graph: bool) -> Reading:
    """Run the network once, with a graph above the named layer, the declared feature map, or the last that will do.

    Below it there is a graph only with create_graph; without, the caller froze the weights. Raises InputError for
    layers that are not there or are no map over the image, naming some that are.
    """
    if not create_graph:
        x = x.detach()
    name = layer if layer is not None else getattr(_itself(model), "feature_layer", None)
    chosen = name is None and not _splits(model)
    if chosen:
        name = _choose(model, x, kind)
    if name is not None:
        leaf, logits = run_with_leaf(_itself(model), layer_of(_named(model), name), x, create_graph)
    else:
        with torch.set_grad_enabled(create_graph):
            leaf = model.feature_map(x)  # type: ignore[operator]
        leaf = leaf if leaf.requires_grad else leaf.detach().requires_grad_(True)
        logits = model.classify(leaf)  # type: ignore[operator]
        kind = kind or "channels_first"
    layout = find_layout(tuple(leaf.shape), _size(x), kind)
    if layout is None:
        better = [other for other, shape in _shapes(model, x).items() if _spreads(find_layout(shape, _size(x), None))]
        raise unknown_layout(name or "of the last feature map", tuple(leaf.shape), _size(x), better[-3:])
    site = Site(name or "", layout, chosen)
    if chosen or layout.kind != "channels_first":
        log.info("maps are read at %s", site)
    return Reading(site, layout.as_map(leaf), leaf, check_logits(logits, leaf))


def _choose(model: nn.Module, x: Tensor, kind: Kind | None) -> str:
    """Return the name of the last layer that is a map over the image and through which all scores pass."""
    probe = x[:1] if len(x) else torch.zeros_like(x.new_empty(1, *x.shape[1:]))
    for name, shape in reversed(_shapes(model, probe).items()):
        layout = find_layout(shape, _size(x), kind)
        if layout is not None and _spreads(layout) and _decides(model, name, probe, layout):
            return name
    raise InputError(
        f"no layer of this network ({type(_named(model)).__name__}) is a map over the image through which its scores "
        "pass; name one by layer=, and how it lies by layout="
    )


def _decides(model: nn.Module, name: str, x: Tensor, layout: Layout) -> bool:
    """Say whether the scores depend on a layer's map, and on the image in no other way.

    Patches behind the last look of a class token have no part in the scores; branches have no whole part.
    """
    x = x.detach().requires_grad_(True)
    leaf, logits = run_with_leaf(_itself(model), layer_of(_named(model), name), x, keep_graph=False)
    if not logits.requires_grad:
        return False
    weights = torch.arange(1, logits.shape[1] + 1, device=logits.device, dtype=logits.dtype)
    slopes: tuple[Tensor | None, ...] = torch.autograd.grad((logits * weights).sum(), (leaf, x), allow_unused=True)
    through, beside = slopes
    return beside is None and through is not None and bool((layout.as_map(through) != 0).any())


def _shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the layers give, by name, in the order in which they end."""
    with torch.no_grad():
        return dict(outputs_of(_itself(model), _named(model), x))


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def _spreads(layout: Layout | None) -> bool:
    return layout is not None and layout.height * layout.width > 1


def _splits(model: nn.Module) -> bool:
    """Say whether a network declares its own feature map and what it makes of it."""
    return isinstance(model, Classifier) and model.splits


def _itself(model: nn.Module) -> nn.Module:
    return model.itself if isinstance(model, Classifier) else model


def _named(model: nn.Module) -> nn.Module:
    """Return the module whose layers have the names that people know."""
    return model.itself.named if isinstance(model, Classifier) else model
