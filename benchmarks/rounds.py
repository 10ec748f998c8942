"""Contestants take turns: every round each runs once, in a process of its own; ratios are of one round."""

import statistics
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.alone import MeasurementError, alone
from benchmarks.blast import Blast, blast
from benchmarks.peers.contestant import ALL, Options

INDISPENSABLE = ("nothing", "batcher")
"""Without these there is nothing to compare."""


class Rounds(msgspec.Struct):
    """The runs of each contestant, one a round, and why others have none."""

    runs: dict[str, list[Blast]] = {}
    failures: dict[str, str] = {}

    def net(self, name: str) -> list[float]:
        """Return the CPU of each round less that of `nothing`, in encodes for each event."""
        pairs = zip(self.runs[name], self.runs["nothing"], strict=True)
        return [run.encodes - base.encodes for run, base in pairs]

    def ratios(self, ours: str, theirs: str, of: Callable[[Blast], float]) -> list[float]:
        """Return ours over theirs, round by round."""
        return [of(mine) / of(other) for mine, other in zip(self.runs[ours], self.runs[theirs], strict=True)]

    def best(self, names: Sequence[str], of: Callable[[Blast], float]) -> str | None:
        """Return the one whose median is greatest."""
        present = [name for name in names if name in self.runs]
        return max(present, key=lambda name: statistics.median(map(of, self.runs[name])), default=None)


def run_rounds(names: Sequence[str], url: str, events: int, rounds: int, *, sized: bool) -> Rounds:
    """Let each contestant run once a round; a peer that fails is out, and says why.

    With `sized`, the queues of those that would lose events are made to hold all.
    """
    found = Rounds(runs={name: [] for name in names})
    for _ in range(rounds):
        for name in names:
            if name in found.failures:
                continue
            most = min(events, ALL[name].most_events or events)
            options = Options(url=url, queue=most if sized else None)
            try:
                found.runs[name].append(alone(blast, name, options, most))
            except MeasurementError as error:
                if name in INDISPENSABLE:
                    raise
                found.failures[name] = str(error)
                del found.runs[name]
    return found
