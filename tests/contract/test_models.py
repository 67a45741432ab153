"""Every registered network, in several image shapes, against every promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import model_checks
from .model_checks import SHAPES, Shape
from .tiny import cases

CHECKS = [check for name, check in vars(model_checks).items() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("spec", cases("model"))
def test_model(spec: Any, shape: Shape, check: Callable[[Any, Shape, Path], None], tmp_path: Path) -> None:
    check(spec, shape, tmp_path)
