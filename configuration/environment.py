"""Where a process runs, which decides what is allowed there."""

from enum import StrEnum


class Environment(StrEnum):
    """The first two are for one machine: loopback only, with development secrets and tokens."""

    TEST = "test"
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"

    @property
    def is_local(self) -> bool:
        """True where only this machine is served, and development secrets, tokens and reflection are allowed."""
        return self in {Environment.TEST, Environment.DEVELOPMENT}
