"""The mean of a map over noisy copies of the image."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from pellucid.guard import recording
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.gradient import Gradient
from pellucid.maths.streaming import chunk_for, summed
from pellucid.protocols import InterpreterField
from pellucid.rng import Stream
from pellucid.spec import NOT_HASHED, Count, NonNegative, register


def noisy_scale(x: Tensor, noise_level: float) -> Tensor:
    """Return the standard deviation that is a share of each image's own range: x (N, ...) -> (N, 1, ...).

    >>> import torch
    >>> noisy_scale(torch.tensor([[0.0, 0.5], [0.2, 0.2]]), 0.1)
    tensor([[0.0500],
            [0.0000]])
    """
    axes = tuple(range(1, x.ndim))
    return noise_level * (x.amax(axes, keepdim=True) - x.amin(axes, keepdim=True))


@register("interpreter", "smooth_grad")
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Doors):
    """The mean of any interpreter's maps over copies of the image with Gaussian noise.

    I(x, c) = (1/n) sum_{i=1}^{n} I_inner(x + g_i, c), g_i ~ N(0, sigma^2), sigma = noise_level (max x - min x): a
    share of the range of each image of its own.

    x (N, C, H, W) in [0, 1]; target and maps as those of the inner interpreter. The noisy points are not clipped to
    [0, 1]. They are passed `chunk` at a time (None: by the size of the image), halved where memory runs out; the
    result depends on that by rounding only. The noise of an image depends on the stream, its position and the
    number of the sample alone. With create_graph the graphs of all samples are held, and noise is a constant.
    Raises InputError where the inner interpreter does.
    Source: Smilkov et al. 2017; Zhang & Zhu 2019, equation 3 (n = 100, sigma = 0.1 of the range, inner
    `Gradient(score="log_probability")`). Deviations: the range is that of the image in [0, 1]; the authors' code
    takes that of the normalised image, which is the same where all channels share mean and std. Their library's own
    default is 0.15, one of their scripts has 0.05.
    """

    inner: InterpreterField = field(default_factory=Gradient)
    samples: Count = 100
    noise_level: NonNegative = 0.1
    chunk: Count | None = field(default=None, metadata=dict(NOT_HASHED))

    def maps(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the maps of any points; the caller froze the model."""
        rng = rng or Stream()
        if not create_graph:
            x = x.detach()
        scale = noisy_scale(x, self.noise_level).detach() if len(x) else x

        def evaluate(rows: Tensor, steps: Tensor) -> Tensor:
            stream, points = rng.pairs(rows, steps), x[rows]
            points = points + scale[rows] * stream.child("noise").normal(points.detach())
            return self.inner.maps(model, points, target[rows], rng=stream.child("inner"), create_graph=create_graph)

        with recording(create_graph):
            total = summed(evaluate, len(x), self.samples, chunk_for(x, self.chunk), x.device)
            return (total / self.samples).to(x.dtype)
