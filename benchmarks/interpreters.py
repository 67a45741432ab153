"""Race Pellucid's interpreters against captum and zennit: same network, images, classes, steps and threads.

    python benchmarks/interpreters.py --out docs/results/benchmarks
    python benchmarks/interpreters.py --only integrated --rounds 9

The networks are untrained: what a map costs does not depend on the weights. A peer that is not installed is left out;
zennit needs torchvision. A race counts where our map is the peer's (the largest difference stands in the table);
where the methods differ by design (quadrature, random numbers) the note says so.
"""

import argparse
import contextlib
import copy
import ctypes
import json
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from interpreter_contenders import RACES
from races import Counting, Outcome, Race, peak_memory, ratio

import pellucid.maths as maths
from attacks import machine

_MOST_ROUNDS = 200
PEERS = ("captum", "zennit", "quantus", "scipy")


def main() -> None:
    """Run the races that were asked for and write the tables."""
    given = arguments()
    torch.set_num_threads(given.threads)
    chosen = {name: make for name, make in RACES.items() if any(name.startswith(s) for s in given.only.split(","))}
    if given.memory:
        race = chosen[given.memory[0]](given.device)
        contender = race.contenders[given.memory[1]]
        contender(race.network, race.x[:1], race.y[:1])  # imports and first allocations are not the method's
        give_back()
        print(json.dumps(peak_memory(race, contender)))
        return
    rows: list[dict[str, Any]] = []
    for name, make in chosen.items():
        rows += table_rows(name, make(given.device), given)
        if given.out is not None:  # after every race: a long run that is interrupted loses one
            write(rows, given)
    print(as_markdown(record(rows, given)))


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="races whose name begins so, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each race, at least")
    parser.add_argument("--seconds", type=float, default=10, help="short races have more rounds, for so long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None, help="folder for interpreters.md and interpreters.json")
    parser.add_argument("--memory", nargs=2, default=None, help=argparse.SUPPRESS)  # RACE CONTENDER, in a child
    return parser.parse_args()


def table_rows(name: str, race: Race, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a race and return one row a contender."""
    outcomes: dict[str, Outcome] = {}
    for who, contender in race.contenders.items():
        counting = Counting(race.network).eval()
        with maths.counted() as passes:  # ours looks inside the network, so it counts for itself
            contender(race.network if who.startswith("pellucid") else counting, race.x, race.y)
        ours = who.startswith("pellucid")
        spent = (passes.forward, passes.backward) if ours else (counting.forward_images, counting.backward_images)
        outcomes[who] = Outcome(forward=spent[0], backward=spent[1])
    names = list(race.contenders)
    began = time.perf_counter()
    for number in range(_MOST_ROUNDS):
        if number >= given.rounds and time.perf_counter() - began > given.seconds:
            break
        for place in range(len(names)):
            who = names[(number + place) % len(names)]
            outcomes[who].seconds.append(timed(race, who))
    gaps = differences(race)
    rows = []
    for who, outcome in outcomes.items():
        rows.append(
            {
                "race": name,
                "contender": who,
                "ratio": ratio(outcomes[names[0]], outcome),
                "median_seconds": statistics.median(outcome.seconds),
                "rounds": len(outcome.seconds),
                "least_seconds": min(outcome.seconds),
                "forward": outcome.forward,
                "backward": outcome.backward,
                "memory_mib": child_memory(name, who, given),
                "difference": gaps[who],
                "note": race.note,
            }
        )
        print(f"{name}: {who} {rows[-1]['ratio']:.2f}x {rows[-1]['memory_mib']} MiB", file=sys.stderr, flush=True)
    return rows


def differences(race: Race) -> dict[str, float]:
    """Return the largest difference to our map, as a share of its largest value, for two images in double precision.

    In single precision a ReLU's input near 0 may fall on either side of it, by the size of the batch alone.
    """
    network, x, y = copy.deepcopy(race.network).double(), race.x[:2].double(), race.y[:2]
    found = {who: contender(network, x.clone(), y).detach() for who, contender in race.contenders.items()}
    ours = next(iter(found.values()))
    return {who: float((f - ours).abs().max() / ours.abs().max()) for who, f in found.items()}


def give_back() -> None:
    """Have the allocator return free memory, or what a first run left would hide what the second takes (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def timed(race: Race, who: str) -> float:
    """Return the seconds that a contender takes."""
    began = time.perf_counter()
    race.contenders[who](race.network, race.x, race.y)
    if race.x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def child_memory(race: str, contender: str, given: argparse.Namespace) -> float | None:
    """Measure peak memory in a fresh process, since a process never gives its peak back."""
    words = [sys.executable, __file__, "--memory", race, contender, "--threads", str(given.threads)]
    done = subprocess.run([*words, "--device", given.device], capture_output=True, text=True, check=False)
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def record(rows: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """Return the rows and what they were measured with."""
    about = {"threads": given.threads, "rounds": given.rounds, "device": given.device, "machine": machine(given.device)}
    return {"rows": rows, **about, "versions": versions()}


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """Write what has been measured so far as a table for people and one for programs."""
    given.out.mkdir(parents=True, exist_ok=True)
    found = record(rows, given)
    (given.out / "interpreters.md").write_text(as_markdown(found))
    (given.out / "interpreters.json").write_text(json.dumps(found, indent=1) + "\n")


def as_markdown(found: dict[str, Any]) -> str:
    """Return the table for people."""
    command = f"python benchmarks/interpreters.py --threads {found['threads']} --rounds {found['rounds']}"
    command += "" if found["device"] == "cpu" else f" --device {found['device']}"
    lines = [
        "# Interpreters against their peers",
        "",
        f"`{command}` on {found['machine']}; {found['versions']}.",
        "",
        "Ratio: the peer's time over ours, median of the rounds (above 1 we are faster). Contenders took turns in one",
        "run, and the machine's two cores had other work: ratios count, seconds (the least of the rounds) do not, and",
        "another run moves ratios by some hundredths. Passes are images through the network. Memory is what the",
        "process grew by, in a process of its own. Difference: the largest between the peer's map and ours, as a share",
        "of our largest value, in double precision.",
        "",
        "| race | contender | ratio | least, s | forward | backward | memory, MiB | difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        memory = "" if row["memory_mib"] is None else f"{row['memory_mib']:.0f}"
        gap = "" if row["contender"] == "pellucid" else f"{row['difference']:.0e}"
        cells = (row["race"], row["contender"], f"{row['ratio']:.2f}", f"{row['least_seconds']:.3f}")
        lines.append("| " + " | ".join((*cells, f"{row['forward']:,}", f"{row['backward']:,}", memory, gap)) + " |")
    notes = dict.fromkeys(f"{row['race']}: {row['note']}" for row in found["rows"] if row["note"])
    return "\n".join([*lines, "", *(f"* {note}" for note in notes)]) + "\n"


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
