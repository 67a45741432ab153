"""The layer at which class activation maps by gradients look: which one, how it lies, its values with a graph above."""

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from pellucid.errors import InputError
from pellucid.guard import check_logits, frozen
from pellucid.interpreters.layout import Kind, Layout, find_layout, unknown_layout
from pellucid.maths.passes import gradient
from pellucid.models.classifier import Classifier
from pellucid.models.layers import layer_of, outputs_of, reaches, run_with_graph, run_with_leaf
from pellucid.rng import Stream

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

    def slope(self, score: Tensor, create_graph: bool, more: bool) -> Tensor:
        """Return the derivative of a score (N,) by the features, as they lie: (N, D, h, w)."""
        try:
            slope = self.site.layout.as_map(gradient(score, self.leaf, create_graph, more or create_graph))
        except CheckpointError:
            raise InputError(
                f"{self.site.layer or 'the layer'} lies where activations are checkpointed, and is run again without "
                "being looked at: switch checkpointing off for the length of the call, or name a layer above it"
            ) from None
        if self.site.layer and len(slope) and not bool(slope.detach().any()):
            log.warning("the scores do not depend on the map of layer %s: maps are zero there", self.site.layer)
        return slope


def read(model: nn.Module, x: Tensor, layer: str | None, kind: Kind | None, create_graph: bool) -> Reading:
    """Run the network once, with a graph above the named layer, the declared feature map, or the last that will do.

    Below it there is a graph only with create_graph; without, the caller froze the weights. Raises InputError for
    layers that are not there or are no map over the image, naming some that are.
    """
    if not create_graph:
        x = x.detach()
    name = layer if layer is not None else _declared(model)
    chosen = name is None and not _splits(model)
    if chosen:
        name = _choose(model, x, kind)
    if name is not None:
        if not len(x):  # there is still a layout to tell
            one = read(model, _probe(x), name, kind, create_graph)
            return replace(one, site=replace(one.site, chosen=chosen), features=one.features[:0], logits=one.logits[:0])
        leaf, logits = run_with_leaf(_itself(model), layer_of(_named(model), name), x, create_graph)
    else:
        with torch.set_grad_enabled(create_graph):
            leaf = model.feature_map(x)  # type: ignore[operator]
        leaf = leaf if leaf.requires_grad else leaf.detach().requires_grad_(True)
        logits = model.classify(leaf.clone())  # type: ignore[operator]  # a copy, since it may work in place
        kind = kind or "channels_first"
    layout = find_layout(tuple(leaf.shape), _size(x), kind)
    if layout is None or len(leaf) != len(x):
        others = list(_candidates(model, _probe(x), None))[-3:]
        raise unknown_layout(name or "", tuple(leaf.shape), tuple(x.shape), others)
    site = Site(name or "", layout, chosen)
    if chosen or layout.kind != "channels_first":
        log.info("maps are read at %s", site)
    return Reading(site, layout.as_map(leaf), leaf, check_logits(logits, leaf))


def _choose(model: nn.Module, x: Tensor, kind: Kind | None) -> str:
    """Return the name of the last layer that is a map over the image and through which all scores pass."""
    probe = _probe(x)
    with frozen(_itself(model)):  # a network in training learns nothing from the image that is tried
        found = _candidates(model, probe, kind)
        name = _last_deciding(model, probe, found)
    if name is not None:
        return name
    raise InputError(
        f"no layer of this network ({type(_named(model)).__name__}) is a map over the image through which its scores "
        "pass; name one by layer=, and how it lies by layout="
    )


def _probe(x: Tensor) -> Tensor:
    """Return one image of noise, of the shape of x: what is chosen hangs on the network, not on the images."""
    noise = Stream().uniform(torch.empty(1, 0, device=x.device), tuple(x.shape[1:]))
    return noise.to(x.dtype)


def _last_deciding(model: nn.Module, x: Tensor, found: dict[str, Layout]) -> str | None:
    """Return the name of the last layer on whose map the scores depend, and on the image in no other way.

    Patches behind the last look of a class token have no part in the scores; branches have no whole part. What a
    layer gave before its last run is another way to the scores.
    """
    leaf = x.detach().requires_grad_(True)
    given, logits = run_with_graph(_itself(model), {name: layer_of(_named(model), name) for name in found}, leaf)
    if not given or not logits.requires_grad:
        return None
    weights = torch.arange(1, logits.shape[1] + 1, device=logits.device, dtype=logits.dtype)
    through = torch.autograd.grad((logits * weights).sum(), list(given.values()), allow_unused=True)
    slopes = {name: slope for name, slope in zip(given, through) if slope is not None}
    ends = [leaf, *(values for values in given.values() if values.is_leaf)]
    for name, layout in reversed(found.items()):
        slope = slopes.get(name)
        if slope is not None and bool((layout.as_map(slope) != 0).any()) and not reaches(logits, ends, given[name]):
            return name
    return None


def _candidates(model: nn.Module, x: Tensor, kind: Kind | None) -> dict[str, Layout]:
    """Return how the layers lie that are maps over the images, by name, in the order in which they end."""
    found: dict[str, Layout] = {}
    with torch.no_grad(), frozen(_itself(model)):
        for name, shape in outputs_of(_itself(model), _named(model), x):
            found.pop(name, None)  # a layer that runs again ends again
            layout = find_layout(shape, _size(x), kind) if shape[0] == len(x) else None
            if layout is not None and layout.height * layout.width > 1:
                found[name] = layout
    return found


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def _declared(model: nn.Module) -> str | None:
    return model.itself.feature_layer if isinstance(model, Classifier) else None


def _splits(model: nn.Module) -> bool:
    """Say whether a network declares its own feature map and what it makes of it."""
    return isinstance(model, Classifier) and model.splits


def _itself(model: nn.Module) -> nn.Module:
    return model.itself if isinstance(model, Classifier) else model


def _named(model: nn.Module) -> nn.Module:
    """Return the module whose layers have the names that people know."""
    return model.itself.named if isinstance(model, Classifier) else model
