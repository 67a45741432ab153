"""The command line: `pellucid --help`.

Exit codes: 0 done, 2 refused (one sentence says why), 130 interrupted (the same command goes on).
"""

import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    interrupted = False

    def interrupt(*_: Any) -> NoReturn:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # only the main thread may listen
            signal.signal(signal.SIGINT, interrupt)
    try:
        from pellucid.cli.app import obey  # takes a moment, in which one may be interrupted as well

        return obey(sys.argv[1:] if words is None else list(words))
    except BaseException as error:
        # An import that is interrupted may fail with an error of its own.
        if not interrupted and not isinstance(error, KeyboardInterrupt):
            raise
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
