"""`python -m surefoot`: the same as the command `surefoot`."""

import sys

from surefoot.cli import main

sys.exit(main())
