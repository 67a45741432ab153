"""A small report in which every kind of block stands, with names that would break careless HTML."""

import math

import numpy as np
import pytest

from pellucid.report import (
    Box,
    BoxFigure,
    BoxPanel,
    Cell,
    Claim,
    Curve,
    CurveFigure,
    Gallery,
    GalleryRow,
    Heatmap,
    HeatmapFigure,
    Panel,
    Picture,
    Report,
    Section,
    Settings,
    Table,
)

NASTY = '<b>&"$x_1$'


@pytest.fixture(scope="session")
def table() -> Table:
    rows = (
        (NASTY, Cell(0.9731, 0.9612, 0.9823, printed=0.9915, settings="run"), "as printed"),
        ("absent", Cell(None), ""),
    )
    return Table("Accuracy", ("network", "clean", "note"), rows, ("Wilson intervals.",))


@pytest.fixture(scope="session")
def curves() -> CurveFigure:
    eps = (0.0, 0.1, 0.2)
    normal = Curve(
        "normal",
        eps,
        (0.99, None, 0.1),
        (0.98, None, 0.08),
        (1.0, None, 0.12),
        printed=(0.991, None, 0.123),
        colour="blue",
        marker="o",
        settings="run",
    )
    never = Curve(NASTY, eps, (None, math.nan, None))
    panels = (
        Panel("white box", (normal, never), "ε", "accuracy"),
        Panel("transfer", (normal,), "ε", "accuracy"),
    )
    return CurveFigure("FGSM", panels, ("Read off the plot.",))


@pytest.fixture(scope="session")
def heatmaps() -> HeatmapFigure:
    values = (
        (Cell(0.123, 0.1, 0.15, printed=0.456, settings="run"), Cell(None)),
        (Cell(math.nan), Cell(1.0)),
    )
    heatmap = Heatmap("ε = 0.1", ("a", NASTY), ("a", "b"), values, "tested", "made on")
    return HeatmapFigure("Transfer", (heatmap, heatmap))


@pytest.fixture(scope="session")
def boxes() -> BoxFigure:
    panel = BoxPanel("norms", (Box("normal", (0.0, 1e-3, 1.0)), Box(NASTY, ())), "norm")
    return BoxFigure("Gradients", (panel, BoxPanel("log p", (Box("normal", (-1.0, -2.0)),), log=False)))


@pytest.fixture(scope="session")
def gallery() -> Gallery:
    digit = np.zeros((4, 4))
    digit[1:3, 1:3] = 1
    pictures = (
        Picture("clean", digit, label=NASTY, confidence=0.998, right=True, settings="run"),
        Picture("change", digit * 0.05 - 0.025, "difference"),
        Picture("map", digit * 2 - 1, "signed", tau=0.312),
        None,
    )
    titles = ("Clean", "Change", "Map", "Map, attacked")
    return Gallery("One digit", (GalleryRow("normal", pictures, "λ = 0"),), titles)


@pytest.fixture(scope="session")
def report(table, curves, heatmaps, boxes, gallery) -> Report:
    verdicts = ("holds", "does not hold", "cannot be decided")
    return Report(
        title=f"Study {NASTY}",
        subtitle="of a paper",
        verdict=("It holds.",),
        facts=(("images", "1,000"),),
        claims=tuple(Claim(f"claim {v}", "statement", "Figure 1", "rule", v, f"evidence {NASTY}") for v in verdicts),
        sections=(
            Section("Numbers", "First.\n\nSecond.", (table, curves, heatmaps)),
            Section("Pictures", "", (boxes, gallery)),
        ),
        settings=(Settings("run", "One run", (("spec", '{\n "eps": 0.1\n}'), ("seed", NASTY))),),
        footer="the end",
    )
