"""What a run ends with: the lines by fate, and how to go on."""

from honeyhive_batcher.cli.send.fates import Fates, ranges
from honeyhive_batcher.cli.send.rejects import Rejects

_MAX_RANGES = 400  # characters


def summary(fates: Fates, rejects: Rejects, elapsed: float) -> list[str]:
    """Return the lines of the summary; their numbers add up to the lines read."""
    aside = [f"{fates.blank:,} blank"] * bool(fates.blank) + [f"{fates.skipped:,} skipped"] * bool(
        fates.skipped
    )
    rows = [
        ("lines read", fates.read, ", ".join(aside)),
        ("delivered", fates.delivered, ""),
        ("rejected", fates.rejected, f"see {rejects.path}" if rejects.is_made else ""),
        ("unconfirmed", len(fates.unconfirmed), "sent, but nobody knows whether they arrived"),
        ("not sent", fates.not_sent + fates.pending, ""),
    ]
    lines = [
        f"{name:<12}{count:>12,}{f'  ({note})' if note and (count or name != 'unconfirmed') else ''}"
        for name, count, note in rows
    ]
    rate = fates.delivered / elapsed if elapsed > 0 else 0.0
    return [*lines, f"{'elapsed':<12}{elapsed:>10,.1f} s  ({rate:,.0f} events/s)"]


def unconfirmed_lines(fates: Fates) -> str:
    """Return a sentence about the lines that may or may not have arrived."""
    text = ranges(fates.unconfirmed)
    if len(text) > _MAX_RANGES:
        text = f"{text[:_MAX_RANGES].rpartition(',')[0]} and more"
    return f"sent without an answer, so they may have arrived or not: line {text}"


def how_to_go_on(fates: Fates) -> str:
    """Return a sentence about what is done and how to send the rest."""
    through = fates.settled_through()
    text = "the first line is not done: send all of it again"
    if through:
        text = f"the first {through:,} lines are done; go on with the same command and --skip {through}"
    beyond = fates.read - fates.not_sent - fates.pending - len(fates.unconfirmed) - through
    if beyond:
        text += f" ({beyond:,} lines after them are done as well and would be sent again)"
    return text
