"""The layers of docs/architecture.md, read from the imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pellucid

ROOT = Path(pellucid.__file__).parent

# A module imports from earlier layers, or from its own folder; single modules from those named before them.
LAYERS = (
    ("errors", "spec", "rng", "protocols", "schedule", "optimisers"),
    ("maths", "guard", "weights"),
    ("data", "models", "transforms"),
    ("interpreters",),
    ("attacks",),
    ("metrics", "feature_visualisation"),
    ("defences",),
    ("store", "dist", "averaging", "stopping", "tracking", "watching", "train", "evaluate", "explain"),
    ("report",),
    ("tasks",),
    ("judge", "humanstudy"),
    ("studies",),
    ("cli",),
    ("__main__",),
)
PLACE = {part: (number, place) for number, parts in enumerate(LAYERS) for place, part in enumerate(parts)}
FORBIDDEN = ("torchvision", "pickle", "dill", "cloudpickle", "joblib", "shelve")

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part_of(path: Path) -> str:
    """Name the part of the library that a file belongs to: its folder, or the module itself."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def is_type_checking(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (test.id if isinstance(test, ast.Name) else getattr(test, "attr", None)) == "TYPE_CHECKING"


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of all that a module imports, but for what stands under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt) and is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        yield from imported(node)


def may_import(part: str, other: str) -> bool:
    """Say whether `part` may import `other`."""
    if PLACE[part][0] != PLACE[other][0] or part == other:
        return PLACE[other] <= PLACE[part]
    modules = (ROOT / f"{part}.py").exists() and (ROOT / f"{other}.py").exists()
    return modules and PLACE[other] < PLACE[part]


def test_the_order_of_the_layers():
    assert may_import("attacks", "maths")
    assert not may_import("maths", "attacks")
    assert may_import("attacks", "attacks")
    assert not may_import("models", "data")
    assert may_import("train", "store")
    assert not may_import("store", "train")
    assert may_import("__main__", "cli")
    assert not may_import("cli", "__main__")


def test_the_imports_are_read_everywhere_but_under_type_checking():
    code = """
import torch
if TYPE_CHECKING:
    from pellucid.cli import main
def f():
    from pellucid.report import page
try:
    import a.b as c
except ImportError:
    from . import d
"""
    assert list(imported(ast.parse(code))) == ["torch", "pellucid.report.page", "a.b", "..d"]


def test_there_is_something_to_read():
    assert {"spec", "maths", "models", "attacks", "metrics", "defences"} <= {part_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_from_earlier_layers_only(path):
    part = part_of(path)
    assert part in PLACE, f"{part} has no layer: add it to the table here and in docs/architecture.md"
    for name in imported(ast.parse(path.read_text())):
        assert not name.startswith("."), f"{name}: imports name the package in full"
        if name.startswith("pellucid.") and name.split(".")[1] in PLACE:
            other = name.split(".")[1]
            assert may_import(part, other), f"{part} (layer {PLACE[part][0]}) imports {name} ({PLACE[other][0]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_no_torchvision_and_no_device_by_name(path):
    tree = ast.parse(path.read_text())
    for name in imported(tree):
        assert name.split(".")[0] not in FORBIDDEN, name
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
        if called == "torch.load" and safe:  # others' files: tensors only, in one place
            assert path == ROOT / "weights.py", "weights are safetensors; others' pickles are read in one place"
            continue
        assert called not in ("torch.load", "torch.hub.load", "eval", "exec", "yaml.load", "__import__"), called
        assert not called.endswith(".cuda") or called.startswith("torch.cuda"), called
        for keyword in node.keywords:
            assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False", called
