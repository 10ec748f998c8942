"""How the cost of an event grows with its size, beside the loops written by hand.

`python -m benchmarks.size`. The unit is an encode of the same event, so a large one may cost fewer of them.
"""

import statistics
import sys

from benchmarks import sink
from benchmarks.alone import alone
from benchmarks.blast import blast
from benchmarks.cli import Plan, main
from benchmarks.data import SIZES
from benchmarks.peers.contestant import HAND_WRITTEN, Options, installed
from benchmarks.report import Column, Plot, Report, Table


def measure(plan: Plan) -> Report:
    """Return the table."""
    names = ["nothing", "batcher", *installed(HAND_WRITTEN)]
    columns = [Column("event"), Column("encode, us")]
    columns += [Column(f"{name}, {unit}") for name in names[1:] for unit in ("net us", "net encodes")]
    table = Table("Cost by size of the event", columns)
    table.plot = Plot([f"{name}, net us" for name in names[1:]], kind="line", is_logarithmic=True)
    with sink.running() as url:
        for label, size in SIZES.items():
            events = plan.size(20_000, 2_000) if size < 50_000 else plan.size(2_000, 300)
            rounds = [
                {name: alone(blast, name, Options(url=url), events, size) for name in names}
                for _ in range(plan.turns(3))
            ]
            row: list[str | float] = [label, statistics.median(each["nothing"].unit for each in rounds) * 1e6]
            for name in names[1:]:
                nets = [(each[name].encodes - each["nothing"].encodes, each[name].unit) for each in rounds]
                row += [
                    statistics.median(net * unit * 1e6 for net, unit in nets),
                    statistics.median(net for net, _unit in nets),
                ]
            table.rows.append([*row])
    return Report("size", [table])


if __name__ == "__main__":
    sys.exit(main(["size"]))
