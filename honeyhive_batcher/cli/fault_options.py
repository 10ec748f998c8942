"""The options that make a local HoneyHive misbehave."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from honeyhive_batcher.collector import Faults


def add_fault_options(parser: ArgumentParser) -> None:
    """Add the options to the parser of a command that runs a collector."""
    group = parser.add_argument_group("misbehaviour, also live by POST /_dev/faults")
    group.add_argument(
        "--fail",
        metavar="STATUS:PROBABILITY",
        type=_shares,
        action="append",
        default=[],
        help="refuse with this status, for example 429:0.2,503:0.1 (repeatable)",
    )
    for name, text in (
        ("partial", "create only some of a request's events, answer the partial 500"),
        ("drop-connection", "cut the connection, before or after storing"),
        ("fail-after-store", "store, then answer a load balancer's 502"),
        ("garbage", "answer something that is not JSON"),
        ("hang", "never answer"),
    ):
        group.add_argument(f"--{name}", metavar="PROBABILITY", type=float, default=0.0, help=text)
    group.add_argument("--latency", metavar="SECONDS", type=float, default=0.0, help="answer so much later")
    group.add_argument(
        "--latency-jitter", metavar="SECONDS", type=float, default=0.0, help="and up to so much more"
    )
    group.add_argument("--retry-after", metavar="TEXT", help="Retry-After of every --fail")
    group.add_argument("--no-echo", action="store_true", help="answer with other ids than the events' own")
    group.add_argument("--seed", type=int, default=0, help="equal seeds, equal faults (default: %(default)s)")


def faults(args: Namespace) -> "Faults":
    """Return the faults that were asked for; the options are named after the fields.

    Raises:
        ConfigError: A value is out of range.
    """
    # Here, not above: it imports aiohttp, which takes longer than a whole `--help`.
    from honeyhive_batcher.collector import Faults  # noqa: PLC0415

    given = {name: value for name, value in vars(args).items() if name in Faults.__struct_fields__}
    given["fail"] = {status: share for shares in args.fail for status, share in shares}
    return Faults(**given)


def _shares(text: str) -> list[tuple[int, float]]:
    try:
        return [
            (int(status), float(share)) for status, share in (part.split(":") for part in text.split(","))
        ]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not STATUS:PROBABILITY, for example 429:0.2") from None
