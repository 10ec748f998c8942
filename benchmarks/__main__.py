"""Print all benchmarks."""

from benchmarks import push, throughput

push.main()
throughput.main()
