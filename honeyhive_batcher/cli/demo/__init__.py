"""`honeyhive-batcher demo`: a simulated chat service that logs to a local HoneyHive, for some seconds.

calls       made-up calls of language models    running     one run: collector, batcher, service
service     the service that makes and logs them    result      what the demo ends with
"""

import asyncio
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Final

from honeyhive_batcher.cli.command import Subparsers
from honeyhive_batcher.cli.fault_options import add_fault_options, faults
from honeyhive_batcher.cli.log import library_log
from honeyhive_batcher.cli.screen import open_screen
from honeyhive_batcher.errors import ConfigError

_DESCRIPTION: Final = (
    "Run a small simulated chat service for some seconds: concurrent requests, sessions, tool calls, now "
    "and then a provider's error. It logs through a Batcher to a local HoneyHive, which misbehaves on "
    "demand (and then asks for no wait, unless --retry-after says so). Ends with the ledger, the requests "
    "by size and cause, and the database to look into. Exit code 0 when every event arrived, else 1."
)


def add_parser(subparsers: Subparsers) -> ArgumentParser:
    """Add the command `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="see the library at work, without an account",
        description=_DESCRIPTION,
    )
    add_fault_options(parser)
    # Seconds here are what minutes are elsewhere. With the collector's own "1", a fifth of refusals would
    # stop everything for most of the time.
    parser.set_defaults(retry_after="0")
    parser.add_argument(
        "--db", metavar="FILE", type=Path, help="SQLite file (default: a new one in a temporary folder)"
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=5.0, help="how long the service runs (default: %(default)g)"
    )
    return parser


def run(args: Namespace) -> int:
    """Run the demo and return its exit code."""
    # Here, not above: it imports aiohttp, which takes longer than a whole `--help`.
    from honeyhive_batcher.cli.demo.running import run_demo  # noqa: PLC0415

    screen = open_screen()
    try:
        with library_log(screen.say):
            # Kept on purpose: it is what the user looks into afterwards.
            db = args.db or Path(tempfile.mkdtemp(prefix="honeyhive-demo-")) / "demo.db"
            return asyncio.run(
                run_demo(screen, db=db, faults=faults(args), seed=args.seed, seconds=args.seconds)
            )
    except ConfigError as wrong:
        screen.close()
        print(f"honeyhive-batcher demo: {wrong}", file=sys.stderr)
        return 2
    finally:
        screen.close()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0, up to 3600")
    return seconds
