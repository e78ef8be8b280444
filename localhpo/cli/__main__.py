"""`python -m localhpo.cli`."""

import sys

from localhpo.cli import main

sys.exit(main())
