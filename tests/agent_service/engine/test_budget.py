"""When a budget is used up."""

import pytest

from agent_service.engine.budget import Budget
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import Usage


def test_it_stops_at_the_limit_exactly() -> None:
    budget = Budget(0.02, Usage())
    budget.check()
    budget.add(Usage(cost_usd=0.019999))
    budget.check()
    budget.add(Usage(cost_usd=0.000001))
    with pytest.raises(ApexError, match=r"\$0\.0200") as caught:
        budget.check()
    assert caught.value.reason is ErrorReason.BUDGET_EXCEEDED
    assert caught.value.recovery_suggestions


def test_what_an_earlier_attempt_spent_counts() -> None:
    with pytest.raises(ApexError):
        Budget(0.02, Usage(cost_usd=0.5)).check()


def test_no_limit_and_no_cost_never_stop() -> None:
    budget = Budget(None, Usage(cost_usd=1e6))
    budget.check()
    free = Budget(0.0, Usage())
    free.add(Usage(model_requests=1))
    free.check()
