"""Race Pellucid's defences against a plain training step: same network, batch, optimiser and threads, side by side.

    python benchmarks/defences.py --out docs/results/benchmarks
    python benchmarks/defences.py --only double --rounds 15

What is timed is a whole training step: the loss terms, their gradient in the weights, and Adam's update. In each round
every contender takes one step, each round begins with another one, and a ratio is the median over rounds of its time
over that of the contender it is compared with. Each contender has a copy of the network of its own, untrained: what a
step costs does not depend on the weights, where an attack runs all of its steps as it does in training.
"""

import argparse
import copy
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pellucid.maths as maths
from attacks import machine
from pellucid.attacks import FGSM, PGD
from pellucid.defences import (
    AdversarialTraining,
    CrossLipschitz,
    DoubleBackprop,
    FastAdversarialTraining,
    GradientNorm,
    IGNorm,
    InterpretabilityAware,
    JacobianRegularization,
    Standard,
)
from pellucid.models import RossCNN, SmallCNN
from pellucid.protocols import Context, Defence
from pellucid.rng import Stream, global_seed

_INNER = PGD(eps=0.3, steps=10, step_size=0.05)
_INT = InterpretabilityAware(attack=_INNER)
_IG = IGNorm(points=5, attack_points=5, attack=_INNER)
PLAIN = "plain step"
DEFENCES: dict[str, Defence] = {
    PLAIN: Standard(),
    "double backpropagation": DoubleBackprop(weight=1.0),
    "gradient norm, finite differences": GradientNorm(form="finite_difference"),
    "FGSM adversarial training": AdversarialTraining(attack=FGSM(eps=0.3, labels="predicted", mode="train")),
    "fast adversarial training": FastAdversarialTraining(eps=0.3),
    "Jacobian, one projection": JacobianRegularization(projections=1),
    "Jacobian, exact": JacobianRegularization(),
    "cross-Lipschitz": CrossLipschitz(),
    "Int, 10 inner steps": _INT,
    "IG-Norm, 10 inner steps, 5 points": _IG,
}
TARGETS = (  # contender, compared with, at most so many times its cost
    ("double backpropagation", PLAIN, 2.4),
    ("gradient norm, finite differences", PLAIN, 2.0),
    ("FGSM adversarial training", PLAIN, 3.0),
    ("fast adversarial training", PLAIN, 2.2),
    ("Jacobian, one projection", PLAIN, 2.0),
    ("cross-Lipschitz", "Jacobian, exact", 1.05),
    ("Int, 10 inner steps", "IG-Norm, 10 inner steps, 5 points", 0.25),
)
NETWORKS = {"Small": (SmallCNN(), 64), "Ross": (RossCNN(), 256)}  # with the batch of a training step
MAPS = ("Int", "IG")  # raced on networks with class activation maps only


@dataclass
class Runner:
    """A contender's own network and optimiser, and the times of its steps."""

    network: nn.Module
    defence: Defence
    optimiser: torch.optim.Optimizer
    seconds: list[float]

    def step(self, x: torch.Tensor, y: torch.Tensor, number: int) -> None:
        """Take one training step."""
        self.optimiser.zero_grad()
        terms = self.defence(self.network, x, y, Context(step=number, seed=1))
        torch.stack(list(terms.values())).sum().backward()
        self.optimiser.step()
        if x.is_cuda:
            torch.cuda.synchronize()


def main() -> None:
    """Run the races that were asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="contenders whose name begins so, comma-separated")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None, help="folder for defences.md and defences.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [row for name in NETWORKS for row in race(name, given)]
    found = {
        "command": command(given),
        "machine": f"{machine(given.device)}, {given.threads} thread",
        "rows": rows,
        "targets": judged(rows),
    }
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "defences.json").write_text(json.dumps(found, indent=1))
        (given.out / "defences.md").write_text(markdown(found))
    print(markdown(found))


def race(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all contenders on one network and return a row each."""
    spec, batch = NETWORKS[name]
    with global_seed(0):
        network = spec.build(1, (28, 28), 10).to(given.device).train()
    like = torch.empty(batch, 0, device=given.device)
    x = Stream(1).uniform(like, (1, 28, 28)).float()
    y = torch.arange(batch, device=given.device) % 10
    chosen = {
        who: defence
        for who, defence in DEFENCES.items()
        if (who == PLAIN or any(who.startswith(start) for start in given.only.split(",")))
        and (network.head is not None or not who.startswith(MAPS))
    }
    runners, passes = {}, {}
    for who, defence in chosen.items():
        own = copy.deepcopy(network)
        runners[who] = Runner(own, defence, torch.optim.Adam([p for p in own.parameters() if p.requires_grad]), [])
        with maths.counted() as spent:  # the first step warms up, and is counted
            runners[who].step(x, y, 0)
        passes[who] = (spent.forward / batch, spent.backward / batch + 1)
    names = list(runners)
    for number in range(given.rounds):
        for place in range(len(names)):
            runner = runners[names[(number + place) % len(names)]]
            began = time.perf_counter()
            runner.step(x, y, number + 1)
            runner.seconds.append(time.perf_counter() - began)
    return [
        {
            "network": name,
            "batch": batch,
            "method": who,
            "milliseconds": 1000 * statistics.median(runner.seconds),
            "least": 1000 * min(runner.seconds),
            "times_plain": times(runner, runners[PLAIN]),
            "times": {other: times(runner, runners[other]) for w, other, _ in TARGETS if w == who and other in runners},
            "forward": passes[who][0],
            "backward": passes[who][1],
        }
        for who, runner in runners.items()
    ]


def times(one: Runner, other: Runner) -> float:
    """Return the median over rounds of the time of one over that of the other."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every target with what was found, network by network."""
    return [
        {
            "network": row["network"],
            "method": who,
            "against": other,
            "at_most": most,
            "found": row["times"][other],
            "met": row["times"][other] <= most,
        }
        for who, other, most in TARGETS
        for row in rows
        if row["method"] == who and other in row["times"]
    ]


def command(given: argparse.Namespace) -> str:
    """Return the command that makes the table again."""
    only = f' --only "{given.only}"' if given.only else ""
    return (
        f"python benchmarks/defences.py --threads {given.threads} --rounds {given.rounds} --device {given.device}{only}"
    )


def markdown(found: dict[str, Any]) -> str:
    """Return the tables for people."""
    lines = ["# What a training step costs", "", f"`{found['command']}` on {found['machine']}.", ""]
    for name in dict.fromkeys(row["network"] for row in found["rows"]):
        own = [row for row in found["rows"] if row["network"] == name]
        lines += [f"## {name}, batches of {own[0]['batch']}", ""]
        lines += ["| method | ms a step (median) | least | times plain | forward | backward |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {row['method']} | {row['milliseconds']:.1f} | {row['least']:.1f} | {row['times_plain']:.2f} "
            f"| {row['forward']:.1f} | {row['backward']:.1f} |"
            for row in own
        ]
        lines.append("")
    lines += ["Forward and backward: passes through the network for each image of the batch.", "", "## Targets", ""]
    lines += ["| network | method | against | at most | found | |", "| --- | --- | --- | ---: | ---: | --- |"]
    lines += [
        f"| {row['network']} | {row['method']} | {row['against']} | {row['at_most']:.2f} | {row['found']:.2f} "
        f"| {'met' if row['met'] else 'missed'} |"
        for row in found["targets"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
