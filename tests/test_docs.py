"""The documentation is true: the method table is the registry's, and the README's Python runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_method_table_is_the_registrys():
    """In an interpreter of its own, since other tests register things."""
    code = "from pellucid.cli.listing import method_table; print(method_table(), end='')"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert made.startswith("# Methods\n")
    path = ROOT / "docs" / "methods.md"
    if os.environ.get("PELLUCID_RENEW_DOCS"):
        path.write_text(made)
    assert path.read_text() == made, "renew it: PELLUCID_RENEW_DOCS=1 pytest tests/test_docs.py"


def test_readme_python_runs_as_printed(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks:  # each goes on where the one before ended
        exec(compile(code, "README.md", "exec"), names)
    assert names["found"].maps["grad_cam"].shape == (8, 2, 7, 7)
    clean, attacked, tau = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert clean > 0.8  # the network learned
    assert attacked < clean - 0.2  # the attack worked
    assert -1 <= tau <= 1


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/results/README.md", "docs/attacks/README.md"]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}, which is not there"


def test_every_attack_has_its_picture():
    """In an interpreter of its own, since other tests register things."""
    code = "from pellucid.spec import names; print(*names('attack'))"
    known = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    page = (ROOT / "docs" / "attacks" / "README.md").read_text()
    for name in known:
        assert f"## {name}\n" in page, f"{name} is missing: pellucid study run gallery (CONTRIBUTING.md)"
        assert (ROOT / "docs" / "attacks" / "figures" / f"{name}.png").exists()
