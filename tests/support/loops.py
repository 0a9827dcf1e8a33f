"""What scripted agent loops of tests have in common."""


async def no_wait(_: float) -> None:
    """Do not wait."""


class OneModelOnly:
    """The part of `AgentLoop` that says what to go on with where a model is down: nothing."""

    def fallbacks(self, model: str = "") -> tuple[str, ...]:
        """Return no model."""
        return ()
