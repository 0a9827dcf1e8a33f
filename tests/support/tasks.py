"""Tasks that something leaves behind."""

import asyncio
from collections import Counter

from tests.support.waiting import DEFAULT_TIMEOUT_S, DeadlinePassedError, eventually


def _tasks() -> Counter[str]:
    return Counter(str(getattr(task.get_coro(), "__qualname__", "")) for task in asyncio.all_tasks())


class NewTasks:
    """How many tasks of this loop are at work beyond those at the moment when this was made, by their coroutine."""

    def __init__(self) -> None:
        self._before = _tasks()

    @property
    def left(self) -> Counter[str]:
        """What has come and not gone. One that took the place of another counts as the other."""
        return _tasks() - self._before

    async def gone(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait until nothing is left. Raises `DeadlinePassedError`, which names the rest."""
        try:
            await eventually(lambda: not self.left, what="no task is left", timeout_s=timeout_s)
        except DeadlinePassedError as error:
            raise DeadlinePassedError(f"{error}, but {dict(self.left)}") from None
