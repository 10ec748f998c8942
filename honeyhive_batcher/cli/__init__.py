"""The command `honeyhive-batcher`, also `python -m honeyhive_batcher`.

    main        picks the command           dev         a local HoneyHive to develop against
    command     what a command is made of

Exit codes: 0 done, 2 the command line or the environment is wrong.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Final

from honeyhive_batcher.cli import dev
from honeyhive_batcher.cli.command import Command
from honeyhive_batcher.version import __version__

__all__ = ["main"]

_COMMANDS: Final[tuple[Command, ...]] = (dev,)


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
    code: int = args.run(args)
    return code
