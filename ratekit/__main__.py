"""`python -m ratekit` is the `ratekit` command."""

import sys

from ratekit.cli import main

if __name__ == "__main__":
    sys.exit(main())
