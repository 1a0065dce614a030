"""`python -m lpu` is the command line."""

import sys

from lpu.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
