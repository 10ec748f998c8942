"""The options of `dev` that make a local HoneyHive misbehave, for other commands."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any, final

from honeyhive_batcher.cli import dev

if TYPE_CHECKING:
    from honeyhive_batcher.collector import Faults

_NOT_FAULTS = {"--port", "--host", "--db", "--api-key"}


@final
class _Picking(ArgumentParser):
    """Takes options, but for those of `dev` that are no faults."""

    def add_argument(self, *names: Any, **how: Any) -> Any:
        return None if _NOT_FAULTS.intersection(names) else super().add_argument(*names, **how)


@final
class _Only:
    """Has `dev` add its options to one parser."""

    def __init__(self, parser: ArgumentParser) -> None:
        self._parser = parser

    def add_parser(self, name: str, **how: Any) -> ArgumentParser:  # noqa: ARG002 - no command is added
        return self._parser


def fault_options() -> ArgumentParser:
    """Return a parser to give to others as one of their `parents`."""
    parser = _Picking(add_help=False)
    dev.add_parser(_Only(parser))
    return parser


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
