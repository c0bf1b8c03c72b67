"""`python -m adapterhub.cli` is the command `adapterhub`."""

import sys

from . import main

sys.exit(main())
