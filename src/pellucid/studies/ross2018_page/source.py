"""What the sections read: tables, stored results, and the settings that they cite."""

from typing import Any

from pellucid.metrics import wilson
from pellucid.report import Cell, Settings
from pellucid.spec import digest, name_of
from pellucid.store import Result
from pellucid.studies.page.settings import settings_of
from pellucid.studies.ross2018_tables import PRINTED
from pellucid.tasks.io import Io

LOOKS = {"normal": ("blue", "o"), "adv. trained": ("darkred", "H")}  # the authors' colours and markers
GREENS, MARKERS = ("green", "limegreen", "darkolivegreen", "olive"), ("v", "^", "<", ">")


class Source:
    """The study's results as the page needs them; remembers every result that a number was cited from."""

    def __init__(self, io: Io, task: Any) -> None:
        self.io, self.task = io, task
        self.numbers: dict[str, Any] = self.result(task).json("tables.json")
        self.labels: list[str] = self.numbers["labels"]
        self.epsilons: tuple[float, ...] = tuple(self.numbers["epsilons"])
        self.selected: str = self.numbers["selected"]
        self.papers: str = self._papers_network()
        self.explained: dict[str, Any] = dict(zip(task.explained_labels, task.explained))
        self.cited: dict[str, Settings] = {}
        self._titles = _titles(task, self.labels)

    @property
    def on_mnist(self) -> bool:
        """Whether the images are those that the printed numbers belong to."""
        return name_of(self.task.networks[0].data) == "mnist"

    def result(self, task: Any) -> Result:
        """Return a stored result."""
        return self.io.result(task)

    def cite(self, task: Any) -> str:
        """Return the key of a result's settings, which the page then shows."""
        key = digest(task)[:12]
        if key not in self.cited:
            self.cited[key] = settings_of(task, self.result(task), key, self._titles[key])
        return key

    def made_for(self, label: str) -> Any:
        """Return the task that attacked a network and let all others judge."""
        return self.task.transfers[self.labels.index(label)]

    def accuracy(self, maker: str, judge: str, place: int) -> Cell:
        """Return the accuracy of `judge` on examples made for `maker` at the eps of that place."""
        found = self.numbers["transfer"][maker][judge][place]
        printed = self.printed(maker, judge, self.epsilons[place])
        return Cell(found["value"], found["low"], found["high"], printed, self.cite(self.made_for(maker)))

    def printed(self, maker: str, judge: str, eps: float) -> float | None:
        """Return what the authors printed; their regularised network stands beside the one of its lambda."""
        names = ["grad. reg." if label == self.papers else label for label in (maker, judge)]
        value: float | None = PRINTED["transfer"].get(names[0], {}).get(names[1], {}).get(f"{eps:.1f}")
        return value

    def _papers_network(self) -> str:
        """Return the regularised network with the paper's lambda, or the selected one where there is none."""
        labels = zip(self.labels[2:], self.task.lambdas)
        return next((k for k, weight in labels if abs(weight / PRINTED["lambda"] - 1) < 0.01), self.selected)

    def printed_note(self) -> str:
        """Say what the printed values are, and how far they may be compared."""
        images = PRINTED["images"]
        note = f"“paper” is the value printed in the authors' notebook for MNIST, {images} test images"
        if not self.on_mnist:
            data = self.result(self.task.networks[0]).meta["data"]["train"]["name"]
            return f"{note}. The data here are not MNIST but {data}, so it is no yardstick for our value."
        return (
            f"{note} (its own 95 % interval reaches up to 6 points either way); its gradient-regularised "
            f"network, lambda {PRINTED['lambda']:.1f}, stands beside {self.papers}."
        )

    def warning(self) -> tuple[str, ...]:
        """Return what must stand under every block where printed values are of other data, if they are."""
        return () if self.on_mnist else ("“paper”: MNIST, not these data.",)

    def looks(self, label: str) -> tuple[str, str]:
        """Return colour and marker of a network, a different pair for up to 16 values of lambda."""
        if label in LOOKS:
            return LOOKS[label]
        place = [name for name in self.labels if name not in LOOKS].index(label)
        return GREENS[place % 4], MARKERS[(place + place // 4) % 4]


def share(value: float, images: int, settings: str) -> Cell:
    """Return an accuracy that was stored as a share alone, with its Wilson interval over that many images."""
    interval = wilson(round(value * images), images)
    return Cell(value, interval.low, interval.high, settings=settings)


def _titles(task: Any, labels: list[str]) -> dict[str, str]:
    named = {
        task: "Tables and claims",
        task.selection: "Selection of lambda",
        **{one.network: f"Training: {label}" for label, one in zip(task.explained_labels, task.explained)},
        **{one: f"Training: {label}" for label, one in zip(labels, task.networks)},
        **{one: f"FGSM examples made for: {label}" for label, one in zip(labels, task.transfers)},
        **{one: f"Input-gradient norms: {label}" for label, one in zip(labels, task.norms)},
        **{one: f"Maps: {label}" for label, one in zip(task.explained_labels, task.explained)},
    }
    return {digest(one)[:12]: title for one, title in named.items()}
