"""The commands, and how refusals are said."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence

# Threads that wait by spinning make two processes on few cores crawl; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from cyclopts import App, CycloptsError

from pellucid import __version__
from pellucid.cli.attack import attack
from pellucid.cli.bias import bias
from pellucid.cli.evaluate import evaluate
from pellucid.cli.explain import explain
from pellucid.cli.listing import list_methods
from pellucid.cli.study import report, study
from pellucid.cli.stylize import stylize
from pellucid.cli.sweep import sweep
from pellucid.cli.train import train
from pellucid.errors import PellucidError

HELP = """Train, attack, explain and judge image classifiers that must be robust and interpretable at once.

Everything is resumable: after an interruption the same command goes on where it was.

Results are kept in a store (./artifacts, --store or PELLUCID_STORE) and not computed twice.

Data sets are read from --data-root or PELLUCID_DATA, or downloaded; digits needs neither.
"""

EXAMPLES = """Examples

A paper's experiments in two minutes, as one HTML page:

  pellucid study run ross2018 --scale smoke

What the same on MNIST would compute, and how long it may take:

  pellucid study show ross2018 --scale small

Train a network with a defence, attack it, explain it:

  pellucid train --data digits --model small_cnn --defence double_backprop \\
    weight=1 --steps 300 --out net

  pellucid train --data digits --model small_cnn --defence int attack=pgd \\
    attack.eps=0.1 attack.steps=5 --average ema --steps 300 --out aware

  pellucid sweep --data digits --model small_cnn --defence double_backprop \\
    --along defence.weight --values 0.1,1,10 --attack fgsm --epsilons 0.1

  pellucid evaluate net --data digits --attack pgd --epsilons 0,0.1,0.2

  pellucid explain net --data digits --attack pgd attack.eps=0.1

  pellucid explain net photo.png --classes predicted,runner_up

What two networks still recognise when texture or shape is taken away:

  pellucid bias net aware --data digits --out shapes

The attacks there are, and all about one of them:

  pellucid list attack

  pellucid list attack pgd
"""

app = App(
    name="pellucid",
    help=HELP,
    help_epilogue=EXAMPLES,
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
app.command(study)
app.command(train, help_epilogue="")
app.command(sweep, help_epilogue="")
app.command(evaluate, help_epilogue="")
app.command(attack, help_epilogue="")
app.command(explain, help_epilogue="")
app.command(bias, help_epilogue="")
app.command(stylize)
app.command(report, help_epilogue="")
app.command(list_methods, name="list", help_epilogue="")


def obey(words: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(code or 0)
    except BrokenPipeError:  # who read the output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CycloptsError as error:
        sentence = re.sub(r"[^\s\"']{80,}", lambda long: long[0][:60] + "...", str(error))
        return _refuse(sentence.rstrip(". \n") + "; see pellucid --help", words)
    except PellucidError as error:
        return _refuse(str(error), words)
    except OSError as error:  # a path that no system call takes, a disk that fails, an output that takes no more
        what = error.filename or "the output"
        if error.filename is None:
            _drop_output()
        return _refuse(f"{what} cannot be used ({error.strerror or error})", words if error.filename else ())


def _drop_output() -> None:
    """Send what is still to be printed nowhere, so that the interpreter does not fail on it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(sentence: str, words: Sequence[str]) -> int:
    sentence = " ".join(sentence.split())
    if "--json" in words:
        print(json.dumps({"error": sentence}))
    else:
        print(f"pellucid: {sentence}", file=sys.stderr)
    return 2
