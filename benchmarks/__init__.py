"""What the batcher costs, beside what one would write by hand, in the same run.

`python -m benchmarks` prints everything; `python -m benchmarks.push` and `python -m benchmarks.throughput`
print a part. Machines differ and drift, so the unit to trust is the *encode*: the cost of one msgspec
encode of the same event, measured in the same process before and after each run.
"""
