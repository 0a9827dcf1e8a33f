"""Answers that were given before: when one may be given again, and which are worth keeping.

An answer is given again to the same user only, for the same request over the same data, and only where the request is
understood without what was said before it in its thread.
"""

import hashlib
import re
import unicodedata
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
import structlog

from agent_service.engine.checkpoint import EarlierAnswer, Plan
from agent_service.engine.events import ArtifactCreated, Effect, FinalResponse, ToolStatus
from agent_service.engine.intents import INTENT_RULES, Intent, Triage
from agent_service.engine.ports import Clock
from agent_service.engine.work import Work
from storage.errors import StorageError
from storage.interfaces import Cache, Files
from storage.records import FileRecord

DataVersion: TypeAlias = Callable[[str], Awaitable[str]]
"""Returns, for a user, a text that differs as soon as their data does; empty where that cannot be said."""

MAX_FILES: Final = 2_000
"""A user who has more is not cached for: to list them costs as much as to compute the answer."""

_PAGE: Final = 200

_FORMAT: Final = 1
"""Of keys and values; answers under another one are not found."""

_EXACT: Final = re.compile(r"[\"'`\u2018-\u201f\u00ab\u00bb]|\bselect\b", re.IGNORECASE)
"""Where a message quotes something, or is SQL, upper and lower case may matter."""

_END_OF_WORD: Final = re.compile(r"[.,;:!?…]+(?=\s|$)")


class AnswerCache:
    """Finds and keeps answers. `versions` tell the versions of everything that answers are computed from.

    `live_tools` are those whose results change beside that. `edition` is what computes the answers: those of another
    one are not given again.
    """

    def __init__(
        self,
        cache: Cache,
        files: Files,
        clock: Clock,
        *,
        versions: tuple[DataVersion, ...],
        live_tools: frozenset[str] = frozenset(),
        edition: str = "",
    ) -> None:
        self._edition = edition
        self._live_tools = live_tools
        self._cache = cache
        self._files = files
        self._clock = clock
        self._versions = versions

    async def key_of(self, work: Work, triage: Triage) -> str:
        """Return under which key this run's answer is to be found or kept; empty: it is neither."""
        settings = work.command.settings
        is_understood_alone = not work.history or triage.standalone
        if not (settings.use_cache and is_understood_alone and INTENT_RULES[triage.category].cache_ttl_s):
            return ""
        data = await self._data_version(work.run.user_id)
        if not data:
            return ""
        parts = (
            _FORMAT,
            self._edition,
            work.run.user_id,
            sorted(work.run.scopes),
            normalised(work.command.content),
            triage.category,
            triage.entities.start_time,  # what "yesterday" means changes with the day
            triage.entities.end_time,
            (settings.model, settings.temperature, settings.max_output_tokens, settings.require_approval),
            [(one.file_id, one.message_id, one.corpus_id) for one in work.command.references],
            work.command.context,
        )
        return f"{data}.{hashlib.sha256(msgspec.json.encode(parts, order='sorted')).hexdigest()}"

    async def find(self, key: str, user_id: str, intent: Intent) -> EarlierAnswer | None:
        """Return the answer, if it is not too old and the files that it names are still there."""
        data = await self._cache.get(key) if key else None
        if data is None:
            return None
        try:
            answer = msgspec.json.decode(data, type=EarlierAnswer)
            for artifact in answer.artifacts:
                await self._files.get(user_id, artifact.artifact_id)
        except (msgspec.MsgspecError, StorageError):
            return None
        age_ms = self._now_ms() - answer.computed_ms
        return answer if 0 <= age_ms < INTENT_RULES[intent].cache_ttl_s * 1000 else None

    async def keep(self, work: Work, plan: Plan, final: FinalResponse) -> None:
        """Keep an answer that may be given again: a whole one, made of looks at data that has not changed since."""
        if not plan.cache_key or final.degraded or not self._only_looked(work):
            return
        if await self._data_version(work.run.user_id) != plan.cache_key.rpartition(".")[0]:
            return
        try:
            files = [await self._files.get(work.run.user_id, artifact_id) for artifact_id in final.artifact_ids]
        except StorageError:
            return
        answer = EarlierAnswer(
            content=final.content,
            computed_ms=self._now_ms(),
            missing_data=final.missing_data,
            suggestions=final.suggestions,
            artifacts=tuple(
                ArtifactCreated(file.file_id, file.name, file.media_type, file.size_bytes, file.description)
                for file in files
            ),
        )
        ttl_s = INTENT_RULES[Intent(plan.intent)].cache_ttl_s
        await self._cache.set(plan.cache_key, msgspec.json.encode(answer), ttl_s=ttl_s)

    async def _data_version(self, user_id: str) -> str:
        try:
            versions = [await version(user_id) for version in self._versions]
        except StorageError as error:
            structlog.get_logger("apex.cache").warning("data_version_unknown", error=type(error).__name__)
            return ""
        return "-".join(versions) if all(versions) else ""

    def _only_looked(self, work: Work) -> bool:
        """Return whether all that the run's tools did was to look at the user's data, and to find something."""
        return all(
            call.executing.effect is Effect.READ_ONLY
            and call.executing.tool_name not in self._live_tools
            and call.completed is not None
            and call.completed.status is ToolStatus.SUCCESS
            for call in work.emitter.state.tools.values()
        )

    def _now_ms(self) -> int:
        return round(self._clock.now().timestamp() * 1000)


def version_of_files(files: Files, is_data: Callable[[FileRecord], bool]) -> DataVersion:
    """Return what tells the version of a user's files, as far as they are data that answers are computed from."""

    async def version(user_id: str) -> str:
        digest, token, seen = hashlib.sha256(), "", 0
        while True:
            page = await files.list(user_id, page_size=_PAGE, page_token=token)
            for record in filter(is_data, page.items):
                digest.update(f"{record.file_id}={record.sha256}\n".encode())
            token, seen = page.next_page_token, seen + len(page.items)
            if seen > MAX_FILES:
                return ""
            if not token:
                return digest.hexdigest()

    return version


def normalised(request: str) -> str:
    """Return a request without what makes no difference: spaces, punctuation after words, and mostly case."""
    text = " ".join(unicodedata.normalize("NFKC", request).split())
    if _EXACT.search(text):
        return text
    folded = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(_END_OF_WORD.sub(" ", folded).split())
