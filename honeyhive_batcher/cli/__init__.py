"""The command `honeyhive-batcher`, also `python -m honeyhive_batcher`.

    main        picks the command           dev         a local HoneyHive to develop against
    command     what a command is made of   demo        a simulated chat service that logs to one
    screen      progress and tables         send        sends a file of events
    signals     Ctrl-C and SIGTERM          log         the library's warnings in a command

Exit codes: 0 done, 1 something was lost, 2 the command line or the environment is wrong, 3 the server
cannot be reached or refuses the key, 130 and 143 ended by Ctrl-C and SIGTERM.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Final

from honeyhive_batcher.cli import demo, dev, send
from honeyhive_batcher.cli.command import Command
from honeyhive_batcher.version import __version__

__all__ = ["main"]

_COMMANDS: Final[tuple[Command, ...]] = (demo, dev, send)

_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Raises:
        SystemExit: from argparse, after `--help`, `--version` or a wrong command line.
    """
    parser = ArgumentParser(
        prog="honeyhive-batcher", description="Log LLM calls to HoneyHive: tools around the library."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers).set_defaults(run=command.run)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:  # before the command could catch it, or after
        print("honeyhive-batcher: stopped", file=sys.stderr)
        return _INTERRUPTED
    return code
