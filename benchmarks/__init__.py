"""What the batcher costs, beside others, in the same run.

`python -m benchmarks` runs all parts and `python -m benchmarks.push`, `.throughput` and so on one of them;
`--quick` shows that they work. Machines differ and drift, so the unit to trust is the *encode*: the cost of
one msgspec encode of the same event, measured in the same process before and after each run. Everything
that is measured runs in a process of its own on one core, and the server that it talks to on another.

    data       the events                         peers/    who takes part, and a file for each
    alone      a process for each measurement     sink      the server, which counts what came
    blast      one contestant, all at once        rounds    contestants take turns
    report     tables and figures                 bounds    what the figures must be
    plots      tables as pictures                 cli       the command line
"""
