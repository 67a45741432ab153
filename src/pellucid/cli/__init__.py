"""The command line: `pellucid --help`."""

from pellucid.cli.app import main

__all__ = ["main"]
