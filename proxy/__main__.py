"""`python -m proxy` is `breakwater`."""

import sys

from proxy.cli import main

sys.exit(main())
