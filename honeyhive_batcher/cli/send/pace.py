"""How far a run is, how fast it goes, and how long it will take yet."""

from typing import final

from honeyhive_batcher.cli.send.fates import Fates
from honeyhive_batcher.cli.send.source import Source


@final
class Pace:
    """One run's progress, as text and as a fraction."""

    def __init__(self, source: Source, fates: Fates, started_at: float) -> None:
        self._source = source
        self._fates = fates
        self._started_at = started_at
        self._skipped_fraction = 0.0

    def skipped(self) -> None:
        """Note that the lines to skip are behind: they tell nothing about the rate."""
        self._skipped_fraction = self._read_fraction() or 0.0

    def fraction(self) -> float | None:
        """Return how much of the file is settled, by bytes; None when nobody knows its size."""
        read = self._read_fraction()
        if read is None:
            return None
        fates = self._fates
        # Bytes are known by block, not by line: what is read and not settled is taken to be of average
        # length. A compressed file has no other way.
        settled = 1 - fates.pending / fates.read if fates.read else 1.0
        return read * settled

    def text(self, now: float, trouble: str | None) -> str:
        """Return one line: lines, rate, percent, time left, what is rejected, what is wrong."""
        fates = self._fates
        elapsed = max(now - self._started_at, 1e-9)
        words = [f"{fates.delivered:,} delivered", f"{fates.delivered / elapsed:,.0f} events/s"]
        fraction = self.fraction()
        if fraction is not None:
            words.append(f"{fraction:.0%}")
            done = fraction - self._skipped_fraction
            if done > 0:
                words.append(f"ETA {_clock_time((1 - fraction) * elapsed / done)}")
        if fates.rejected:
            words.append(f"{fates.rejected:,} rejected")
        if trouble is not None:
            words.append(f"waiting for the server ({trouble})")
        return "  ".join(words)

    def _read_fraction(self) -> float | None:
        if not self._source.size:
            return None
        return min(1.0, self._source.position / self._source.size)  # it may grow while it is read


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
