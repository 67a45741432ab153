"""One forward for logits and maps: what attacks on explanations ask a network for, at the same point, twice."""

import torch
from torch import Tensor, nn

from pellucid.models.classifier import Classifier


class OneForward(Classifier):
    """A network that remembers what it gave for the last tensor, so that maps and logits share a forward pass.

    It holds the network itself, which the caller froze; made by `sharing`, for the length of an attack.
    """

    def __init__(self, inner: Classifier) -> None:
        nn.Module.__init__(self)  # not the Classifier's, which would make a normalisation of its own
        self.inner, self.head, self.channels = inner, inner.head, inner.channels
        self.mean, self.std = inner.mean, inner.std
        self._features: tuple[Tensor, bool, Tensor] | None = None
        self._logits: tuple[Tensor, bool, Tensor] | None = None

    @property
    def splits(self) -> bool:
        """Whether the network's logits are classify(feature_map(x))."""
        return self.inner.splits

    @property
    def itself(self) -> Classifier:
        """The network that does the work, and remembers nothing."""
        return self.inner

    def normalise(self, x: Tensor) -> Tensor:
        """Return the network's normalised images."""
        return self.inner.normalise(x)

    def features(self, x: Tensor) -> Tensor:
        """Return the network's last feature map of normalised images."""
        return self.inner.features(x)

    def classify(self, f: Tensor) -> Tensor:
        """Return the network's logits of a feature map."""
        return self.inner.classify(f)

    def feature_map(self, x: Tensor) -> Tensor:
        """Return the last feature map, remembered if the same tensor came before."""
        known, recorded = self._features, torch.is_grad_enabled()
        if known is None or known[0] is not x or known[1] != recorded:
            known = self._features = (x, recorded, self.inner.feature_map(x))
        return known[2]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, remembered if the same tensor came before."""
        known, recorded = self._logits, torch.is_grad_enabled()
        if known is None or known[0] is not x or known[1] != recorded:
            own = self.feature_map(x).clone() if self.splits else None  # a copy, since classify may work in place
            logits = self.inner(x) if own is None else self.classify(own)
            known = self._logits = (x, recorded, logits)
        return known[2]


def sharing(model: nn.Module) -> nn.Module:
    """Return the network as one that passes each tensor forward once; foreign modules as they are."""
    if not isinstance(model, Classifier) or model._forward_hooks or model._forward_pre_hooks:
        return model
    return OneForward(model)
