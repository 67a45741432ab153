"""What interpreters say they decided, such as the layer they take: log records of `pellucid.interpreters`."""

import contextlib
import logging
from collections.abc import Iterator

_LOGGER = logging.getLogger("pellucid.interpreters")


@contextlib.contextmanager
def deciding() -> Iterator[list[str]]:
    """Collect, each once, the decisions that interpreters report inside the block (such as which layer they take)."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(record.getMessage().split())
            if text not in heard:
                heard.append(text)

    ear, level, passed_on = Ear(logging.INFO), _LOGGER.level, _LOGGER.propagate
    _LOGGER.addHandler(ear)
    _LOGGER.propagate = passed_on and _LOGGER.isEnabledFor(logging.INFO)  # who did not ask for them hears nothing new
    _LOGGER.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield heard
    finally:
        _LOGGER.removeHandler(ear)
        _LOGGER.setLevel(level)
        _LOGGER.propagate = passed_on
