"""One socket's session at the service: asked for, open, lost, asked for again. Sans-IO."""

from enum import Enum

from ws_bridge.effects import Effect, OpenSession

REOPEN_MS = 1000
"""Pause before a session that the service ended for now is asked for again, in milliseconds, if it names none."""


class Opened(Enum):
    """What a `SessionReady` means."""

    FIRST = "first"
    AGAIN = "again"
    RENEWED = "renewed"


class ServiceLink:
    """The session of one socket. `attached` says whether the service can be reached now.

    The token is the one that the service accepted last; a renewal counts when it is confirmed, or when the session
    has to be opened again anyway.
    """

    def __init__(self, *, attached: bool) -> None:
        self._attached = attached
        self._asked = False
        self._open = False
        self._ever_open = False
        self._ask_at_ms: int | None = None
        self._token: str | None = None
        self._renewing: str | None = None

    @property
    def open(self) -> bool:
        """True while the service holds the session."""
        return self._open

    @property
    def known(self) -> bool:
        """True when the service may know the session, so that it must be told of the end."""
        return self._open or self._asked

    @property
    def token(self) -> str:
        """The user's token, for calls."""
        return self._token or ""

    def sign_in(self, now_ms: int, token: str) -> list[Effect]:
        """Take the first token, or a fresh one."""
        if self._open:
            self._renewing = token
            return [OpenSession(token)]
        self._token = token
        self._asked = False
        return self.ask(now_ms)

    def attach(self, now_ms: int) -> list[Effect]:
        """The service can be reached."""
        self._attached = True
        return self.ask(now_ms)

    def ask(self, now_ms: int) -> list[Effect]:
        """Ask for the session, unless that is done, impossible or too early."""
        waits = self._ask_at_ms is not None and now_ms < self._ask_at_ms
        if self._open or self._asked or waits or not self._attached or self._token is None:
            return []
        self._asked = True
        self._ask_at_ms = None
        return [OpenSession(self._token)]

    def opened(self) -> Opened:
        """The service has answered: the session is open."""
        if self._open:
            self._take_renewed()
            return Opened.RENEWED
        first = not self._ever_open
        self._open = self._ever_open = True
        self._asked = False
        return Opened.FIRST if first else Opened.AGAIN

    def lose(self, *, attached: bool, ask_at_ms: int | None = None) -> bool:
        """The service has forgotten the session; tell whether it was open."""
        was_open = self._open
        self._take_renewed()
        self._attached = attached
        self._open = self._asked = False
        self._ask_at_ms = ask_at_ms
        return was_open

    def _take_renewed(self) -> None:
        if self._renewing is not None:
            self._token, self._renewing = self._renewing, None
