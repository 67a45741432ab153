"""Accuracy on examples made for each network: curves, matrix, table (the paper's Figure 1)."""

from pellucid.metrics import wilson
from pellucid.report import Cell, Curve, CurveFigure, Heatmap, HeatmapFigure, Panel, Section, Table
from pellucid.spec import fraction
from pellucid.studies.ross2018_page.source import LOOKS, Source
from pellucid.studies.ross2018_tables import PRINTED

SHOWN = (0.1, 0.3, 0.5)


def section(source: Source) -> Section:
    """Return the section."""
    return Section(
        "Accuracy on FGSM examples made for each network",
        "Each network is attacked with FGSM, and all networks classify what comes out (the paper's Figure "
        "1). On examples made for itself a network meets an attacker who knows it (white box); on examples "
        "made for another, one who had to guess (transfer).\n\n"
        f"{source.printed_note()}",
        (_curves(source), _matrix(source), _table(source), *((_agreement(source),) if source.on_mnist else ())),
    )


def _curves(source: Source) -> CurveFigure:
    panels = tuple(
        Panel(
            f"made for: {maker}",
            tuple(_curve(source, maker, judge) for judge in source.labels),
            "eps",
            "accuracy",
        )
        for maker in source.labels
    )
    notes: tuple[str, ...] = () if source.on_mnist else ("Dashed lines are MNIST, not these data.",)
    unstable = sum(source.numbers["unstable"].values())
    if unstable:
        notes += (
            f"{unstable} predictions depended on the batch they were made in (rounding); they are left as found.",
        )
    return CurveFigure("Accuracy against eps, one panel per attacked network", panels, notes)


def _curve(source: Source, maker: str, judge: str) -> Curve:
    cells = [source.accuracy(maker, judge, place) for place in range(len(source.epsilons))]
    colour, marker = source.looks(judge)
    return Curve(
        label=judge,
        x=source.epsilons,
        y=tuple(_number(cell) for cell in cells),
        low=tuple(cell.low for cell in cells),
        high=tuple(cell.high for cell in cells),
        printed=tuple(cell.printed for cell in cells) if any(c.printed is not None for c in cells) else None,
        colour=colour,
        marker=marker,
        settings=cells[0].settings,
    )


def _number(cell: Cell) -> float | None:
    return None if isinstance(cell.value, str) else cell.value


def _matrix(source: Source) -> HeatmapFigure:
    names = tuple(source.labels)

    def one(eps: float) -> Heatmap:
        place = source.epsilons.index(eps)
        cells = tuple(tuple(source.accuracy(maker, judge, place) for maker in names) for judge in names)
        return Heatmap(f"eps {fraction(eps)}", names, names, cells, "classified by", "made for")

    return HeatmapFigure(
        "Transfer matrix: who is fooled by whose examples",
        tuple(one(eps) for eps in SHOWN if eps in source.epsilons),
        (
            "Read down a column for how many images each network still classifies right when the attack "
            "was made for the network named above it; the diagonal is white box. Light: nearly all fooled; "
            "dark: nearly all right.",
            *source.warning(),
        ),
    )


def _table(source: Source) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    for judge in source.labels:
        for maker, said in ((judge, "itself"), ("normal", "normal")):
            if said == "itself" or judge != "normal":
                cells = (source.accuracy(maker, judge, place) for place in range(len(source.epsilons)))
                rows.append((judge, said, *cells))
    header = ("network", "made for", *(f"eps {fraction(eps)}" for eps in source.epsilons))
    caption = "Accuracy under FGSM: white box, and transferred from the normal network"
    return Table(caption, header, tuple(rows), source.warning())


def _agreement(source: Source) -> Table:
    """Compare with the printed curves of Figure 1, curve by curve."""
    rows: list[tuple[Cell | str, ...]] = []
    shown = [label for label in source.labels if label in (*LOOKS, source.papers)]
    for maker in shown:
        for judge in shown:
            cells = [source.accuracy(maker, judge, place) for place in range(len(source.epsilons))]
            gaps = [value - c.printed for c in cells if (value := _number(c)) is not None and c.printed is not None]
            inside = sum(_overlap(cell) for cell in cells)
            mean, largest = sum(gaps) / len(gaps), max(gaps, key=abs)
            rows.append((maker, judge, _points(mean), _points(largest), f"{inside} of {len(gaps)}"))
    return Table(
        "Ours minus the printed accuracy, in points, over the eight eps of a curve of Figure 1",
        ("made for", "classified by", "mean", "largest", "eps where the intervals overlap"),
        tuple(rows),
        (f"Intervals: Wilson, ours over {source.numbers['images']:,} images, the paper's over {PRINTED['images']}.",),
    )


def _points(gap: float) -> str:
    return f"{100 * gap:+.1f}"


def _overlap(cell: Cell) -> bool:
    if cell.printed is None or cell.low is None or cell.high is None:
        return False
    theirs = wilson(round(cell.printed * PRINTED["images"]), PRINTED["images"])
    return theirs.low <= cell.high and cell.low <= theirs.high
