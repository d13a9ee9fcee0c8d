"""`python -m etl` is the same as the console script `etl`."""

import sys

from etl.cli import main

if __name__ == "__main__":
    sys.exit(main())
