"""What a report says, before it is drawn: plain frozen dataclasses of numbers, words and pictures.

None (or NaN) always means that a number is missing, and is shown as missing. `settings` fields hold the key
of the `Settings` behind a number; the page links to it.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from pellucid.errors import InputError

Number: TypeAlias = float | None
Style: TypeAlias = Literal["percent", "number", "decimals"]
Verdict: TypeAlias = Literal["holds", "does not hold", "cannot be decided"]
PictureKind: TypeAlias = Literal["image", "signed", "unsigned", "difference"]


def _same_length(owner: str, length: int, **parts: tuple[Any, ...] | None) -> None:
    for name, part in parts.items():
        if part is not None and len(part) != length:
            raise InputError(f"{owner}: {name} has {len(part)} entries, but {length} are needed")


@dataclass(frozen=True)
class Cell:
    """One number: value, 95 % interval [low, high], what the paper printed, and the key of its settings.

    style="percent" shows the fraction .973 as 97.3 %, "number" three significant digits, "decimals" three
    digits after the point, for values that are compared on one scale, such as correlations; an int (a count)
    and a string are always shown as they are.
    """

    value: float | str | None
    low: Number = None
    high: Number = None
    printed: Number = None
    settings: str | None = None
    style: Style = "percent"


@dataclass(frozen=True)
class Table:
    """A table of numbers and words; the first column names the rows.

    Raises InputError for rows that are not as wide as the header.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that every row has as many cells as the header."""
        for row in self.rows:
            _same_length(f"table {self.caption!r}", len(self.header), row=row)


@dataclass(frozen=True)
class Curve:
    """One line: y over x with intervals and the paper's printed values, all (len(x),); None where missing.

    colour and marker are matplotlib's names; None takes the next of a cycle that colour-blind readers can
    tell apart. Curves of the same label share their looks in all panels. joined=False draws points without a
    line: a scatter plot. Raises InputError for differing lengths.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] | None = None
    high: tuple[Number, ...] | None = None
    printed: tuple[Number, ...] | None = None
    colour: str | None = None
    marker: str | None = None
    settings: str | None = None
    joined: bool = True

    def __post_init__(self) -> None:
        """Check the lengths."""
        _same_length(f"curve {self.label!r}", len(self.x), y=self.y, low=self.low, high=self.high, printed=self.printed)


@dataclass(frozen=True)
class Panel:
    """One plot among several; y_range None fits the values instead of 0 to 1.

    ticks names the places 0, 1, 2 ... of the x axis, where it counts things instead of measuring.
    """

    title: str
    curves: tuple[Curve, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = (0.0, 1.0)
    ticks: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurveFigure:
    """Small multiples with one legend; `columns` is how many stand side by side where there is room."""

    caption: str
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()
    columns: int | None = None


@dataclass(frozen=True)
class Heatmap:
    """A matrix of numbers, coloured from `lowest` to `highest`.

    values[i][j] belongs to rows[i] and columns[j]; raises InputError for another shape.
    """

    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Cell, ...], ...]
    row_title: str
    column_title: str
    notes: tuple[str, ...] = ()
    lowest: float = 0.0
    highest: float = 1.0

    def __post_init__(self) -> None:
        """Check the shape."""
        _same_length(f"heat map {self.caption!r}", len(self.rows), values=self.values)
        for row in self.values:
            _same_length(f"heat map {self.caption!r}", len(self.columns), row=row)


@dataclass(frozen=True)
class HeatmapFigure:
    """Several heat maps side by side, for example one per epsilon."""

    caption: str
    heatmaps: tuple[Heatmap, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    """One distribution, given by all of its values."""

    label: str
    values: tuple[float, ...]
    colour: str | None = None
    settings: str | None = None


@dataclass(frozen=True)
class BoxPanel:
    """Distributions on one axis. On a log axis values below `floor` are drawn (and averaged) as `floor`."""

    title: str
    boxes: tuple[Box, ...]
    value_label: str = ""
    log: bool = True
    floor: float = 1e-20


@dataclass(frozen=True)
class BoxFigure:
    """Box plots in panels: quartiles, 5th to 95th percentile, mean."""

    caption: str
    panels: tuple[BoxPanel, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Picture:
    """An image or a map, with what the network said about it.

    pixels (H, W) or (H, W, 3): kind "image" and "unsigned" (a map) in [0, 1], "signed" (a map) in [-1, 1],
    "difference" x' - x in [-1, 1], whose full colour stands for `scale` (None: its largest absolute value),
    which is stated under it; channels of a map are summed. `right` None leaves open whether the predicted
    label is right. `said` are further lines under it, and `sources` the keys of the settings behind them, one a
    line or none at all. Raises InputError for other shapes and numbers of keys.
    """

    caption: str
    pixels: NDArray[Any]
    kind: PictureKind = "image"
    label: str | None = None
    confidence: float | None = None
    right: bool | None = None
    tau: float | None = None
    scale: float | None = None
    settings: str | None = None
    said: tuple[str, ...] = ()
    sources: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        """Check the shape and the number of keys."""
        _same_length(f"picture {self.caption!r}", len(self.said), sources=self.sources or None)
        shape = self.pixels.shape
        if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise InputError(f"picture {self.caption!r}: pixels must be (H, W) or (H, W, 3), not {shape}")


@dataclass(frozen=True)
class GalleryRow:
    """The pictures of one network or image; None leaves a place empty."""

    title: str
    pictures: tuple[Picture | None, ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures in rows and columns; column_titles may be empty."""

    caption: str
    rows: tuple[GalleryRow, ...]
    column_titles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, the rule by which it is judged, and the verdict with its evidence.

    power says, where the verdict is open, how much more would decide it.
    """

    name: str
    statement: str
    source: str
    rule: str
    verdict: Verdict
    evidence: str
    settings: str | None = None
    power: str = ""


@dataclass(frozen=True)
class Settings:
    """Everything behind a number, under the key that cells and curves name."""

    key: str
    title: str
    entries: tuple[tuple[str, str], ...]


Block: TypeAlias = Table | CurveFigure | HeatmapFigure | BoxFigure | Gallery


@dataclass(frozen=True)
class Section:
    """A heading, text (blank lines part its paragraphs) and what is shown under it."""

    title: str
    text: str = ""
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Report:
    """One page: verdict and claims on top, then sections, then the settings behind every number.

    `terms` are the words that a reader from elsewhere needs, each with its meaning; they follow the verdict.
    """

    title: str
    subtitle: str = ""
    verdict: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    claims: tuple[Claim, ...] = ()
    sections: tuple[Section, ...] = ()
    settings: tuple[Settings, ...] = ()
    footer: str = ""
