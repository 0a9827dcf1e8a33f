"""`python -m ws_bridge`: environment → settings → run."""

import os
import sys

from ws_bridge.server import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ))
