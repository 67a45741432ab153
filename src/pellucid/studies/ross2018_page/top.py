"""The head of the page: what it is about, the verdict, the terms, the claims; and the choices at its end."""

import re

from pellucid.report import Claim, Section, Table
from pellucid.report.numbers import percent
from pellucid.studies.page.settings import duration
from pellucid.studies.ross2018_page.source import Source
from pellucid.studies.ross2018_page.training import trained

EPS = 0.3  # of the verdict: the eps that adversarial training trains with
SCALES = {"smoke": "smoke run on small digits", "small": "small scale on MNIST", "paper": "the paper's scale"}
CLAIMS = {
    "L1": "Resistance to transferred FGSM",
    "L2": "Examples that fool every network",
    "L6": "Size of input gradients",
    "L7": "Too large a lambda",
}


def subtitle(source: Source) -> str:
    """Name the paper and how much of it this is."""
    return (
        "Ross & Doshi-Velez 2018: are networks whose training keeps the input gradient small harder to "
        f"attack? A reproduction: {SCALES[source.numbers['scale']]}."
    )


def verdict(source: Source) -> tuple[str, ...]:
    """Return the caveat of the scale, the first claim, and how three networks fare."""
    first = source.numbers["claims"][0]
    names = ("normal", "adv. trained", source.selected)
    return (
        *_caveat(source),
        f"The paper's main claim on FGSM ({first['name']}: gradient-regularised networks resist transferred "
        f"examples best at high eps) {first['verdict']} here.",
        *(_fares(source, label) for label in names),
    )


def _caveat(source: Source) -> tuple[str, ...]:
    task, images = source.task.networks[0], source.result(source.task.networks[0]).meta["data"]["train"]
    length = f"{task.steps:,} training steps instead of 15,000"
    if not source.on_mnist:
        return (
            f"This run shows that everything works: {length}, on {images['images']:,} images of "
            f"{images['name']} instead of MNIST. It neither confirms nor refutes the paper, whose printed "
            "numbers are for MNIST.",
        )
    if source.numbers["scale"] != "paper":
        return (f"MNIST as in the paper, but {length}: verdicts are about networks far from converged.",)
    return ()


def _fares(source: Source, label: str) -> str:
    place = source.epsilons.index(EPS)

    def said(maker: str, at: int) -> str:
        return percent(source.numbers["transfer"][maker][label][at]["value"])

    clean, white_box = said(label, 0), said(label, place)
    own = f"{label}: right on {clean} of clean test images, {white_box} of FGSM images made for it"
    if label == "normal":
        return f"{own} (eps {EPS})."
    return f"{own}, {said('normal', place)} of those made for the normal network (eps {EPS})."


def facts(source: Source) -> tuple[tuple[str, str], ...]:
    """Return the size of the run at a glance."""
    first = source.result(source.task.networks[0]).meta
    seconds = sum(source.result(task).meta["wall_seconds"] for task in trained(source).values())
    pooled = len(source.explained) - len(source.labels)
    return (
        ("Scale", source.numbers["scale"]),
        ("Data", f"{first['data']['train']['name']}, {first['data']['train']['images']:,} training images"),
        ("Test images", f"{source.numbers['images']:,}"),
        ("Networks", f"{len(source.labels)} + {pooled} small ones for CAM"),
        ("Training time", duration(seconds)),
        ("Device", f"{first['device']}, {first['threads']} threads"),
        ("Seed", str(first["seed"])),
    )


def terms(source: Source) -> tuple[tuple[str, str], ...]:
    """Explain the words of the page to somebody who has not read the paper."""
    return (
        ("normal", "a network trained on clean images only"),
        ("adv. trained", "adversarial training: half of every training batch are FGSM images, eps 0.3"),
        (
            "grad. reg. λ",
            "gradient regularisation: training also punishes the squared gradient of the loss with respect "
            "to the image; lambda weighs this punishment",
        ),
        ("eps", "the most that any pixel is changed; black is 0 and white is 1"),
        ("FGSM", "fast gradient sign method: every pixel moves by eps in the direction that raises the loss"),
        ("TGSM", "the same towards another label, here the next one: the direction that lowers its loss"),
        ("PGD", "projected gradient descent: many small steps of that kind, never further than eps in all"),
        ("made for", "whose gradient was followed; examples that fool other networks as well transfer"),
        ("tau", "Kendall's tau-b: how alike two maps order their pixels, 1 alike, 0 unrelated, −1 reversed"),
        ("CAM", "class activation map: where the last features speak for a class"),
        (
            "small numbers",
            "95 % intervals (accuracies: Wilson; means: bootstrap over images); one seed, so training anew "
            "may move a value further than its interval says",
        ),
    )


def claims(source: Source) -> tuple[Claim, ...]:
    """Return the judged claims under names that say what they are about."""
    key = source.cite(source.task)
    return tuple(
        Claim(
            name=f"{CLAIMS.get(row['name'], '')} ({row['name']})".strip(),
            statement=row["statement"],
            source=row["source"],
            rule=row["rule"],
            verdict=row["verdict"],
            evidence=re.sub(r"(?<![\w.])-(?=\d)", "−", row["evidence"]),
            settings=key,
        )
        for row in source.numbers["claims"]
    )


def choices(rows: tuple[tuple[str, str], ...]) -> Section:
    """Return what was decided by hand."""
    table = Table("What differs from the paper, or is not printed in it", ("choice", "what and why"), rows)
    return Section("Choices", "", (table,))


def footer(source: Source) -> str:
    """Say what made the page."""
    first = source.result(source.task.networks[0]).meta
    versions = first["versions"]
    return (
        f"Networks trained with Pellucid {versions['pellucid']}, torch {versions['torch']}, commit "
        f"{first['commit'] or 'unknown'}."
    )
