"""`python -m knarr`: the same as the `knarr` script."""

import sys

from knarr.cli import main

sys.exit(main())
