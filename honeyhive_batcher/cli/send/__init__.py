"""`honeyhive-batcher send`: a file of model events to HoneyHive, one a line.

source      bytes from a file or a pipe         fates       what became of every line
lines       bytes become lines                  rejects     the file with the lines not delivered
event       a line becomes an event             sending     one run: read, send, stop when it must
pace        how far, how fast, how long yet     summary     what a run ends with
"""

import asyncio
import math
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from honeyhive_batcher.cli.command import Subparsers
from honeyhive_batcher.cli.log import library_log
from honeyhive_batcher.cli.screen import Screen, open_screen
from honeyhive_batcher.config import ENVIRONMENT, RetryLimits
from honeyhive_batcher.errors import ConfigError

_DESCRIPTION = """\
Send model events to HoneyHive: one JSON object a line, from a file or from standard input, as it is or
compressed with gzip. Lines are read no faster than they are taken, so that a file of any size needs
little memory. Values arrive as they stand in the file. A line without event_id gets one; a line
without project or source gets that of --project or --source, if there is one.

Lines that are no event, and those that the server will not have, are named on standard error as
FILE:LINE: reason, and kept beside the file in NAME.rejected.jsonl (stdin.rejected.jsonl here). It is
made when there is a first one; one from before is never touched, the new one is NAME.rejected-2.jsonl.

Settings come from the variables that Batcher.from_env() reads, such as HH_API_KEY and HH_API_URL.
Better not put a key on the command line: others on the machine can see it there."""

_EPILOG = """\
exit codes: 0 all delivered; 1 some lines were not, or nobody knows; 2 the command line, the file or a
setting is wrong; 3 the server cannot be reached, or refuses the key or the address; 130 or 143 stopped
by Ctrl-C or SIGTERM, after which --skip goes on."""


def add_parser(subparsers: Subparsers) -> ArgumentParser:
    """Add the command `send`."""
    parser = subparsers.add_parser("send", help="send a file of events", description=_DESCRIPTION)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", help='JSON lines, also gzipped; "-" for standard input')
    parser.add_argument("--api-key", metavar="KEY", help="HoneyHive's key (HH_INGESTION_API_KEY, HH_API_KEY)")
    parser.add_argument("--base-url", metavar="URL", help="where to send (HH_API_URL)")
    parser.add_argument("--project", help="project of events without one (HH_PROJECT)")
    parser.add_argument("--source", help="source of events without one (HH_SOURCE)")
    parser.add_argument(
        "--batch-size", metavar="N", type=_count, help="most events in a request (HH_BATCH_SIZE)"
    )
    parser.add_argument(
        "--skip",
        metavar="N",
        type=_count,
        default=0,
        help="leave out the first N lines, to go on after a stop",
    )
    parser.add_argument(
        "--rejected", metavar="FILE", type=Path, help="where rejected lines go; it must not exist yet"
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        default=30.0,
        help="how long a server may take nothing before this gives up (default: %(default)g)",
    )
    return parser


def run(args: Namespace) -> int:
    """Send a file and return the exit code, see `_EPILOG`."""
    # Here, not above: what `--help` does not need.
    from honeyhive_batcher.cli.send.rejects import Rejects, rejected_path  # noqa: PLC0415
    from honeyhive_batcher.cli.send.sending import Sending  # noqa: PLC0415
    from honeyhive_batcher.cli.send.source import Source  # noqa: PLC0415

    if args.rejected is not None and args.rejected.is_file():
        return _wrong(f"{args.rejected} exists; choose another file with --rejected, or move it away")
    try:
        source = Source(args.file)
    except OSError as error:
        return _wrong(f"cannot read {args.file}: {error.strerror}")
    rejects = Rejects(args.rejected or rejected_path(source), numbered=args.rejected is None)
    screen = open_screen()
    try:
        with library_log(screen.say):
            sending = Sending(
                source, rejects, screen, skip=args.skip, wait=args.wait, settings=_settings(args)
            )
            return asyncio.run(sending.run())
    except ConfigError as wrong:
        source.close()
        return _wrong(str(wrong), screen)
    finally:
        screen.close()
        rejects.close()


def _settings(args: Namespace, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what the command line says, and what differs from the library's defaults.

    Raises:
        ConfigError: There is no key.
    """

    def is_set(setting: str) -> bool:
        return any(environ.get(name, "").strip() for name in ENVIRONMENT[setting])

    if args.api_key is None and not is_set("api_key") and not is_set("test_mode"):
        raise ConfigError("there is no API key: set HH_API_KEY, or pass --api-key")
    given = {
        "api_key": args.api_key,
        "base_url": args.base_url,
        "project": args.project,
        "source": args.source,
        "max_batch_events": args.batch_size,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    settings["overflow"] = "drop_newest"  # `put` waits for room; evicting would lose what it just put
    settings["sample_rate"] = 1.0  # whoever sends a file means all of it
    # A program that serves users must not keep events for ever. A person who sends a file is better
    # served by a bound in time, which `--wait` says, than by one in attempts.
    if not is_set("max_retries"):
        settings["max_retries"] = 1000
    if not is_set("max_elapsed"):
        settings["max_elapsed"] = max(RetryLimits().max_elapsed, 2 * args.wait)
    return settings


def _wrong(reason: str, screen: Screen | None = None) -> int:
    if screen is not None:
        screen.close()
    print(f"honeyhive-batcher send: {reason}", file=sys.stderr)
    return 2


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ArgumentTypeError(f"{text!r} is not a number of lines or events")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
