"""`python -m chaos`: the same as the command `chaos`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
