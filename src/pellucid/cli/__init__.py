"""The command line: `pellucid --help`.

Exit codes: 0 done, 2 refused (one sentence says why), 130 interrupted (the same command goes on).
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]

INTERRUPTED = "interrupted; the same command goes on from here"


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        from pellucid.cli.app import obey

        return obey(sys.argv[1:] if words is None else list(words))
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: Any) -> None:
    """End at once while modules are imported: raised there, an interrupt would end in somebody else's error."""
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)
