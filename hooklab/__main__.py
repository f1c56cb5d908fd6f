"""`python -m hooklab`: the same as the `hooklab` command."""

import sys

from .cli import main

sys.exit(main())
