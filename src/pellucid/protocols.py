"""The signatures that everything in Pellucid is built on.

Shapes: x (N, C, H, W) float in [0, 1]; y (N,) int64; logits (N, K).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.rng import Stream
from pellucid.spec import member

if TYPE_CHECKING:  # layer 2, named in annotations only
    from pellucid.data.split import Split
    from pellucid.models.classifier import Classifier

Model = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]
"""objective(x', rows) -> one value per row; `rows` are the positions of x' in the batch that was handed over."""

TargetRule = Literal["next", "random", "runner_up", "least_likely"]
Norm = Literal["linf", "l2"]
Mode = Literal["eval", "train"]
Part = Literal["train", "validation", "test"]


def _no_networks(task: Any) -> nn.Module:
    raise InputError(
        "this defence learns from a teacher: the training task hands it over; in a loop of your own give "
        "Context(network=lambda task: teacher)"
    )


@dataclass(frozen=True)
class Context:
    """Where a training run stands when it asks a defence for its loss."""

    progress: float = 1.0  # share of the run that is done, in [0, 1]
    step: int = 0
    seed: int = 0
    positions: Tensor | None = None  # places of the batch's samples in the training set
    network: Callable[[Any], nn.Module] = _no_networks  # the network that a task made: a teacher, in eval mode
    unlabelled: Tensor | None = None  # images of which no label is known, besides the batch

    @property
    def stream(self) -> Stream:
        """The random numbers of this step's samples."""
        return Stream(self.seed, self.positions).child("step", self.step)


@runtime_checkable
class Attack(Protocol):
    """attack(model, x, y) -> x' in [0, 1], same shape; y are the true labels.

    Targeted where the field `target` names a rule, or where the call gives target labels.
    `stop_when_fooled` lets samples leave the batch once they are misclassified (white-box accuracy).
    """

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Tensor:
        """Return the adversarial images."""
        ...

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x' that maximises any per-example objective; the caller froze the model."""
        ...


@runtime_checkable
class Interpreter(Protocol):
    """interpreter(model, x, target) -> maps: target (N,) gives (N, h, w) or (N, C, H, W), (N, M) gives (N, M, ...).

    Detached unless `create_graph`; then differentiable in x and in the parameters. The call checks the images and
    freezes the model; `maps` is the inner door, for interpreters made of others and for attacks on maps.
    """

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the maps."""
        ...

    def maps(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the maps of any points, in [0, 1] or not; the caller froze the model."""
        ...


@runtime_checkable
class Defence(Protocol):
    """defence(model, x, y, ctx) -> {name: weighted scalar}; the loss is the sum; "cross_entropy" is the plain one."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms of one batch."""
        ...


@runtime_checkable
class ModelSpec(Protocol):
    """A description of a network."""

    def build(self, channels: int, size: tuple[int, int], classes: int) -> "Classifier":
        """Return a freshly initialised network for images (channels, *size) and this many classes."""
        ...


@runtime_checkable
class Data(Protocol):
    """A description of a data set."""

    def load(self, part: str) -> "Split":
        """Return one part: "train", "validation" or "test"."""
        ...


@runtime_checkable
class Transform(Protocol):
    """transform(images) -> images of the same shape; what is random is so for each image by itself.

    The result is in [0, 1] unless a field `clip` is False.
    """

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the transformed images."""
        ...


class Progress(Protocol):
    """What long work tells whoever watches."""

    def __call__(self, done: int, total: int, **numbers: float) -> None:
        """Take note that `done` of `total` units are finished, with the current figures."""
        ...


def silent(done: int, total: int, **numbers: float) -> None:
    """Watch nothing: the default of everything that reports progress."""


# Fields of a description that hold another one.
AttackField = Annotated[Attack, member("attack")]
InterpreterField = Annotated[Interpreter, member("interpreter")]
DefenceField = Annotated[Defence, member("defence")]
ModelField = Annotated[ModelSpec, member("model")]
DataField = Annotated[Data, member("data")]
TransformField = Annotated[Transform, member("transform")]
