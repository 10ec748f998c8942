"""`honeyhive-batcher dev`: a local HoneyHive to develop against, in the foreground."""

import asyncio
import errno
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from honeyhive_batcher.cli.command import Subparsers
from honeyhive_batcher.cli.fault_options import add_fault_options, faults
from honeyhive_batcher.cli.signals import signals_caught
from honeyhive_batcher.errors import ConfigError

if TYPE_CHECKING:
    from honeyhive_batcher.collector import Collector, Faults, StoredRequest

_DEFAULT_DB: Final = Path(".honeyhive/dev.db")
_DEFAULT_KEY: Final = "hh_dev"

_DESCRIPTION: Final = (
    "Run a local HoneyHive: it takes POST /events/model/batch and PUT /events strictly by the documented "
    "contract, keeps what it gets in a SQLite file, shows it under /_dev/events, /_dev/sessions, "
    "/_dev/requests and /_dev/stats, and misbehaves on demand. PROBABILITY is a number from 0 to 1."
)


def add_parser(subparsers: Subparsers) -> ArgumentParser:
    """Add the command `dev`."""
    parser = subparsers.add_parser("dev", help="run a local HoneyHive", description=_DESCRIPTION)
    parser.add_argument("--port", type=_port, default=8787, help="0 for any free port (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument(
        "--db", metavar="FILE", type=Path, default=_DEFAULT_DB, help="SQLite file (default: %(default)s)"
    )
    parser.add_argument("--api-key", metavar="KEY", help="the only key accepted (default: any is)")
    add_fault_options(parser)
    return parser


def run(args: Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Return 0 then, and 2 if the collector cannot start."""
    try:
        if args.db == _DEFAULT_DB:
            _make_default_folder()
        asyncio.run(_serve(args, faults(args)))
    except ConfigError as wrong:
        print(f"honeyhive-batcher dev: {wrong}", file=sys.stderr)
        return 2
    except OSError as wrong:
        if wrong.errno == errno.EADDRINUSE:
            reason = (
                f"port {args.port} is in use; choose another one with --port, or any free one with --port 0"
            )
        else:
            reason = str(wrong)
        print(f"honeyhive-batcher dev: {reason}", file=sys.stderr)
        return 2
    return 0


async def _serve(args: Namespace, misbehaviour: "Faults") -> None:
    # Here, not above: it imports aiohttp, which takes longer than a whole `--help`.
    from honeyhive_batcher.collector import Collector  # noqa: PLC0415

    stop = asyncio.Event()

    def say(*lines: str) -> None:
        try:
            print(*lines, sep="\n", flush=True)
        except BrokenPipeError:
            # Whoever read along is gone (`… dev | head`): end quietly. What Python flushes at exit goes
            # to the same broken pipe, so it gets another one first (docs.python.org, "Note on SIGPIPE").
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            stop.set()

    with signals_caught(lambda _number: stop.set()):
        async with Collector(
            host=args.host,
            port=args.port,
            db=args.db,
            api_key=args.api_key,
            faults=misbehaviour,
            seed=args.seed,
            on_request=lambda request: say(_line(request)),
        ) as hive:
            say(
                f"A local HoneyHive at {hive.url}, Ctrl-C stops it",
                f"What it gets is kept in {args.db} and shown at {hive.url}/_dev/events",
                f"export HH_API_URL={hive.url}",
                f"export HH_API_KEY={args.api_key or _DEFAULT_KEY}",
            )
            await stop.wait()
            say(_summary(hive, args.db))


def _line(request: "StoredRequest") -> str:
    words = [
        time.strftime("%H:%M:%S", time.localtime(request.received_at)),
        request.method,
        request.path,
        "no answer" if request.status is None else str(request.status),
        _count(request.events, "event"),
        f"{request.bytes:,} B",
        f"{(request.latency or 0) * 1000:.1f} ms",
        *([f"[{request.fault}]"] if request.fault else []),
        *([request.message] if request.message else []),
    ]
    # Method, path and message hold what the client sent: control characters must not reach the terminal.
    return "".join(char if char.isprintable() else "?" for char in "  ".join(words))


def _summary(hive: "Collector", db: Path) -> str:
    stats = hive.stats()
    statuses = ", ".join(f"{count} x {status}" for status, count in stats.requests_by_status.items())
    return (
        f"{db} holds {_count(stats.events, 'event')} ({_count(stats.duplicates, 'duplicate')}), "
        f"{_count(stats.sessions, 'session')}, {_count(stats.requests, 'request')}"
        f"{f' ({statuses})' if statuses else ''}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _make_default_folder() -> None:
    folder = _DEFAULT_DB.parent
    if not folder.exists():
        folder.mkdir()
        # Prompts and answers are in there: they must not end up in a commit by accident.
        (folder / ".gitignore").write_text("*\n")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)
