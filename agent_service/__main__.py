"""`python -m agent_service`: environment → settings → run."""

import os
import sys

from agent_service.settings import StartError, load_settings
from configuration.variables import SettingsError, env_file_argument


def main() -> int:
    """Run the service; return the exit code: 2 for wrong settings, 1 for what the machine refuses."""
    try:
        settings = load_settings(os.environ, env_file_argument("python -m agent_service", sys.argv[1:]))
        # gRPC reads this when it is imported: the sandbox's children never use it, so it need not prepare for forks.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        from agent_service.app import run

        run(settings)
    except (SettingsError, StartError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


sys.exit(main())
