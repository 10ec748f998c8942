"""`python -m honeyhive_batcher`: the same as the command `honeyhive-batcher`."""

import sys

from honeyhive_batcher.cli import main

if __name__ == "__main__":
    sys.exit(main())
