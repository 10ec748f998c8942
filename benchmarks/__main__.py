"""Run all parts of the suite."""

import sys

from benchmarks.cli import main

sys.exit(main())
