"""What a command is made of."""

from argparse import ArgumentParser, Namespace
from typing import Protocol


class Subparsers(Protocol):
    """What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""

    def add_parser(
        self,
        name: str,
        *,
        help: str,  # noqa: A002 - argparse calls it so
        description: str,
    ) -> ArgumentParser:
        """Add a command and return its parser."""
        ...


class Command(Protocol):
    """A module of this package with one command in it."""

    def add_parser(self, subparsers: Subparsers) -> ArgumentParser:
        """Add the command; imports nothing slow, because `--help` of any command runs it."""
        ...

    def run(self, args: Namespace) -> int:
        """Run the command and return the exit code."""
        ...
