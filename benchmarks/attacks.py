"""Race Pellucid's attacks against those of foolbox, ART and torchattacks: same network, images, budget and threads.

    python benchmarks/attacks.py --out docs/results/benchmarks
    python benchmarks/attacks.py --only jsma --rounds 9

The networks are trained once (a minute or two, kept in --store): a Small network on the embedded digits, undefended,
and one trained on PGD examples. A peer that is not installed is left out. A race counts only where our success is
that of the peer or better; otherwise its ratio stands in brackets.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from contenders import RACES, networks
from races import Race, peak_memory, ratio, run

PEERS = ("foolbox", "adversarial-robustness-toolbox", "torchattacks")


def main() -> None:
    """Run the races that were asked for and write the tables."""
    given = arguments()
    torch.set_num_threads(given.threads)
    races = {race.name: race for name, make in RACES.items() if wanted(name, given) for race in make(*networks(given))}
    if given.memory:
        race, contender = given.memory
        print(json.dumps(peak_memory(races[race], races[race].contenders[contender])))
        return
    rows: list[dict[str, Any]] = []
    for race in races.values():
        rows += table_rows(race, given)
        write(rows, given)  # after every race: a long run that is interrupted loses one
    print(as_markdown(record(rows, given)))


def record(rows: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """Return the rows and what they were measured with."""
    return {
        "rows": rows,
        "threads": given.threads,
        "rounds": given.rounds,
        "device": given.device,
        "machine": machine(given.device),
        "versions": versions(),
    }


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """Write what has been measured so far as a table for people and one for programs."""
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        found = record(rows, given)
        (given.out / "attacks.md").write_text(as_markdown(found))
        (given.out / "attacks.json").write_text(json.dumps(found, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="races whose name begins so, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each race")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--store", type=Path, default=Path("artifacts"), help="where the trained networks are kept")
    parser.add_argument("--out", type=Path, default=None, help="folder for attacks.md and attacks.json")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--memory", nargs=2, default=None, help=argparse.SUPPRESS)  # RACE CONTENDER, in a child
    return parser.parse_args()


def wanted(name: str, given: argparse.Namespace) -> bool:
    """Say whether a group of races was asked for."""
    return not given.only or any(name.startswith(start) for start in given.only.split(","))


def table_rows(race: Race, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a race and return one row a contender."""
    outcomes = run(race, given.rounds)
    ours = next(iter(outcomes.values()))
    rows = []
    for name, outcome in outcomes.items():
        rows.append(
            {
                "race": race.name,
                "contender": name,
                "ratio": ratio(ours, outcome),
                "counts": ours.success >= outcome.success - 1e-9,
                "median_seconds": sorted(outcome.seconds)[len(outcome.seconds) // 2],
                "forward": outcome.forward,
                "backward": outcome.backward,
                "success": outcome.success,
                "distance": None if math.isnan(outcome.distance) else outcome.distance,
                "memory_mib": None if given.no_memory else child_memory(race.name, name, given),
                "images": len(race.x),
                "note": race.note,
            }
        )
        print(f"{race.name}: {name} {rows[-1]['ratio']:.2f}x", file=sys.stderr, flush=True)
    return rows


def child_memory(race: str, contender: str, given: argparse.Namespace) -> float | None:
    """Measure peak memory in a fresh process, since a process never gives its peak back."""
    words = [sys.executable, __file__, "--memory", race, contender, "--threads", str(given.threads)]
    words += ["--device", given.device, "--store", str(given.store), "--only", race.split(" ")[0]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def as_markdown(found: dict[str, Any]) -> str:
    """Return the table for people."""
    command = f"python benchmarks/attacks.py --threads {found['threads']} --rounds {found['rounds']}"
    command += "" if found["device"] == "cpu" else f" --device {found['device']}"
    lines = [
        "# Attacks against their peers",
        "",
        f"`{command}` on {found['machine']}; {found['versions']}.",
        "",
        "Ratio: the peer's time over ours, median of the rounds; in brackets where our success is lower. Passes are",
        "images through the network; distance is the median l2 of the fooled; memory is what the process grew by.",
        "",
    ]
    lines += ["| race | contender | ratio | forward | backward | success | distance | memory, MiB |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in found["rows"]:
        said = f"{row['ratio']:.2f}" if row["counts"] else f"({row['ratio']:.2f})"
        distance = "" if row["distance"] is None else f"{row['distance']:.3f}"
        memory = "" if row["memory_mib"] is None else f"{row['memory_mib']:.0f}"
        cells = (row["race"], row["contender"], said, f"{row['forward']:,}", f"{row['backward']:,}")
        lines.append("| " + " | ".join((*cells, f"{row['success']:.1%}", distance, memory)) + " |")
    notes = dict.fromkeys(f"{row['race']}: {row['note']}" for row in found["rows"] if row["note"])
    return "\n".join([*lines, "", *(f"* {note}" for note in notes)]) + "\n"


def machine(device: str) -> str:
    """Return what the races ran on."""
    name = platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{platform.system()} {name}, torch {torch.__version__}"


def versions() -> str:
    """Return the peers' versions."""
    found = []
    for name in PEERS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


if __name__ == "__main__":
    main()
