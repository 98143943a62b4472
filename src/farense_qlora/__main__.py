"""`python -m farense_qlora <command>`: the command line, also where its script is on no path."""

import sys

from .cli import main

sys.exit(main())
