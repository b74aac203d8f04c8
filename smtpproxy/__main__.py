"""``python -m smtpproxy``: the same as the command ``smtpproxy``."""

import sys

from smtpproxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
