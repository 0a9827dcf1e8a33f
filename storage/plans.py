"""Plans of actions in a database."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import RecordNotFoundError
from storage.records import PlanRecord
from storage.rows import plan_record
from storage.schema import action_plans


class SqlActionPlans:
    """Implements `storage.interfaces.ActionPlans`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, plan: PlanRecord) -> PlanRecord:
        saved = select(action_plans).where(_is(plan.user_id, plan.plan_id))
        creation = insert(action_plans).values(
            id=plan.plan_id,
            user_id=plan.user_id,
            thread_id=plan.thread_id,
            version=plan.version,
            document=plan.document,
            create_time=plan.create_time,
            update_time=plan.update_time,
        )

        async def work(connection: AsyncConnection) -> PlanRecord:
            row = (await connection.execute(saved)).one_or_none()
            if row is not None:
                return plan_record(row)
            await connection.execute(creation)
            return plan

        return await self._database.write(work)

    async def get(self, user_id: str, plan_id: str) -> PlanRecord:
        return await self._database.read(lambda connection: _get(connection, user_id, plan_id))

    async def list(self, user_id: str, *, limit: int) -> Sequence[PlanRecord]:
        newest = action_plans.c.update_time.desc(), action_plans.c.id.desc()
        query = select(action_plans).where(action_plans.c.user_id == user_id).order_by(*newest).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return [plan_record(row) for row in rows]

    async def replace(
        self, user_id: str, plan_id: str, document: bytes, *, version: int, update_time: datetime
    ) -> PlanRecord | None:
        change = (
            update(action_plans)
            .where(_is(user_id, plan_id), action_plans.c.version == version)
            .values(document=document, version=version + 1, update_time=update_time)
        )

        async def work(connection: AsyncConnection) -> PlanRecord | None:
            changed = (await connection.execute(change)).rowcount
            found = await _get(connection, user_id, plan_id)
            return found if changed else None

        return await self._database.write(work)


def _is(user_id: str, plan_id: str) -> ColumnElement[bool]:
    return and_(action_plans.c.id == plan_id, action_plans.c.user_id == user_id)


async def _get(connection: AsyncConnection, user_id: str, plan_id: str) -> PlanRecord:
    row = (await connection.execute(select(action_plans).where(_is(user_id, plan_id)))).one_or_none()
    if row is None:
        raise RecordNotFoundError("plan", plan_id)
    return plan_record(row)
