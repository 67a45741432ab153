"""Anybody's network as a Classifier."""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from pellucid.errors import InputError
from pellucid.maths.passes import note_forward
from pellucid.models.classifier import Classifier


class Adapted(Classifier):
    """A foreign module behind the Classifier's signature; made by `adapt`."""

    def __init__(
        self,
        module: nn.Module,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        feature_layer: str | None,
        head: nn.Linear | None,
    ) -> None:
        super().__init__(mean, std)
        self.module = module
        self.feature_layer = feature_layer
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's logits."""
        note_forward(len(x))
        return self._logits(self.normalise(x))

    @property
    def named(self) -> nn.Module:
        """The foreign module, whose layers have the names that people know."""
        return self.module

    def _logits(self, x: Tensor) -> Tensor:
        """Return what the module makes of normalised images, unwrapped where it is an output with `.logits`."""
        try:
            with _differentiable_twice():
                output = self.module(x)
        except RuntimeError:
            if len(x) or self.module.training:
                raise
            blank = x.new_zeros(1, *x.shape[1:])  # reshape(..., -1), common in transformers, fails on no images
            return self._logits(torch.cat([x, blank]))[:0]
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"the adapted network must return logits (N, K), N = {len(x)}; it returned {shape}")
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Return the output of the named layer, caught by a hook that lives inside this call only."""
        if self.feature_layer is None:
            raise InputError("no feature layer was named: adapt(module, feature_layer='...', head='...')")
        caught: list[Tensor] = []

        def catch(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                caught.append(output.clone())  # a copy: the next layer may work in place

        handle = self.module.get_submodule(self.feature_layer).register_forward_hook(catch)
        try:
            logits = self._logits(x)
        finally:
            handle.remove()
        if not caught or caught[-1].ndim != 4:
            found = tuple(caught[-1].shape) if caught else "no tensor"
            raise InputError(f"layer {self.feature_layer!r} must give a map (N, D, h, w); it gave {found}")
        if self.head is not None and len(x) and not self.training:  # dropout before the head hides what it is
            self._check_head(caught[-1].detach(), logits.detach())
        return caught[-1][: len(x)]

    def _check_head(self, features: Tensor, logits: Tensor) -> None:
        """Refuse a head that does not turn pooled features into the module's logits: CAM would be wrong."""
        assert self.head is not None
        pooled = features.mean((2, 3))
        if pooled.shape[1] == self.head.in_features:
            with torch.no_grad():
                if torch.allclose(self.head(pooled), logits, rtol=1e-2, atol=1e-3 * float(logits.abs().amax() + 1)):
                    return
        raise InputError(
            f"the head is not the linear map from the pooled features of {self.feature_layer!r} to the logits; "
            "name the last map before global average pooling, or leave the head out"
        )


def _differentiable_twice() -> contextlib.AbstractContextManager[None]:
    """Have attention computed by plain products while a graph is recorded: fused kernels lack second derivatives."""
    if not torch.is_grad_enabled():
        return contextlib.nullcontext()
    manager: contextlib.AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return manager


def adapt(
    module: nn.Module,
    *,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    feature_layer: str | None = None,
    head: str | None = None,
) -> Classifier:
    """Turn any module from images to logits (N, K) into a Classifier that takes images in [0, 1].

    Modules whose output has `.logits`, as Hugging Face's vision models, are unwrapped. While gradients are recorded,
    attention is computed by plain products, since maps may be differentiated again.

    mean, std: the normalisation the module was trained with, per channel; the Classifier applies it.
    feature_layer, head: names of submodules (as `named_modules` lists them) for maps such as CAM: the last
    map before global average pooling and the linear layer after it. A Classifier is returned as it is, and
    takes no options.

    Raises InputError for names that the module does not have, with those it has, for what is no module or
    still lacks weights, and for a mean or std that cannot be used.

    >>> from torch import nn
    >>> net = adapt(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), mean=0.5, std=0.5)
    >>> net(torch.full((2, 1, 2, 2), 0.5)).shape
    torch.Size([2, 3])
    """
    if isinstance(module, Classifier):
        numbers: list[object] = [torch.as_tensor(value).tolist() for value in (mean, std)]
        if numbers != [0.0, 1.0] or feature_layer is not None or head is not None:
            raise InputError("a Classifier owns its normalisation and its head: adapt takes no options for it")
        return module
    if not isinstance(module, nn.Module):
        raise InputError(f"adapt needs a torch module (a network), not {module!r:.80}")
    if any(is_lazy(p) for p in (*module.parameters(), *module.buffers())):
        raise InputError("the module has lazy layers without weights yet: run a batch of images through it first")
    known = dict(module.named_modules())
    for given in (feature_layer, head):
        if given is not None and given not in known:
            raise InputError(f"the module has no layer {given!r}; it has {', '.join(k for k in known if k)}")
    linear = known[head] if head is not None else None
    if linear is not None and not isinstance(linear, nn.Linear):
        raise InputError(f"the head must be an nn.Linear; {head!r} is a {type(linear).__name__}")
    return Adapted(module, mean, std, feature_layer, linear)
