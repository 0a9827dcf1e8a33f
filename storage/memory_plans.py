"""Plans of actions in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from storage.errors import RecordNotFoundError
from storage.memory_state import MemoryState
from storage.records import PlanRecord
from storage.schema import to_microseconds


class MemoryActionPlans:
    """Implements `storage.interfaces.ActionPlans`."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def create(self, plan: PlanRecord) -> PlanRecord:
        return self._state.plans.setdefault((plan.user_id, plan.plan_id), plan)

    async def get(self, user_id: str, plan_id: str) -> PlanRecord:
        plan = self._state.plans.get((user_id, plan_id))
        if plan is None:
            raise RecordNotFoundError("plan", plan_id)
        return plan

    async def list(self, user_id: str, *, limit: int) -> Sequence[PlanRecord]:
        own = [plan for plan in self._state.plans.values() if plan.user_id == user_id]
        return sorted(own, key=lambda plan: (to_microseconds(plan.update_time), plan.plan_id), reverse=True)[:limit]

    async def replace(
        self, user_id: str, plan_id: str, document: bytes, *, version: int, update_time: datetime
    ) -> PlanRecord | None:
        plan = await self.get(user_id, plan_id)
        if plan.version != version:
            return None
        changed = replace(plan, document=document, version=version + 1, update_time=update_time)
        self._state.plans[user_id, plan_id] = changed
        return changed
