"""What a run has consumed, and when it must stop."""

from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import Usage


class Budget:
    """Counts what models consumed. `limit_usd` None means no limit; `spent` is what earlier attempts consumed."""

    def __init__(self, limit_usd: float | None, spent: Usage) -> None:
        self._limit_usd = limit_usd
        self.spent = spent

    def add(self, usage: Usage) -> None:
        """Count a model request."""
        self.spent += usage

    def check(self) -> None:
        """Raise `ApexError(BUDGET_EXCEEDED)` when the budget is used up: call before each model request.

        The cost of a request is known only afterwards, so the first one is always allowed, and the last one may pass
        the limit.
        """
        if self._limit_usd is None or not self.spent.cost_usd or self.spent.cost_usd < self._limit_usd:
            return
        raise ApexError(
            ErrorReason.BUDGET_EXCEEDED,
            f"This run has used ${self.spent.cost_usd:.4f} of its budget of ${self._limit_usd:.4f}, so it was stopped.",
            recovery_suggestions=("Set a higher budget_usd.", "Ask a narrower question."),
        )
