"""Any network behind a standardisation of each image by itself."""

from dataclasses import dataclass

from pellucid.models.classifier import Classifier
from pellucid.protocols import ModelField
from pellucid.spec import register


@register("model", "per_image")
@dataclass(frozen=True, kw_only=True)
class PerImage:
    """A network that standardises every image by its own mean and deviation before anything else.

    x' = (x - m) / max(s, 1 / sqrt(D)), m and s the mean and standard deviation (divided by D) over all D values of the
    image, channels together; then what `network` does with it.

    Images (N, C, H, W) in [0, 1]; attacks and maps go through the standardisation, since it is part of the network. An
    image's logits depend on that image alone.
    Source: Zhang & Zhu 2019 on Tiny ImageNet ("per-image standardization", the name and the bound on s of
    TensorFlow's function). Deviations: none known; the authors released no code for that data set.
    """

    network: ModelField

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        built = self.network.build(channels, size, classes)
        built.per_image = True
        return built
