"""The same request over the same data tells the same each time: whole runs against files in `tests/data/transcripts`.

`pytest tests/agent_service/agents --update-transcripts` rewrites them; the diff is what a reviewer reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from agent_service.engine.commands import Reference
from tests.support.conversations import Bench
from tests.support.datasets import StoppedClock, table
from tests.support.transcripts import transcript

FOLDER: Final = Path(__file__).parents[2] / "data" / "transcripts"

LOG: Final = table(
    "timestamp,model,feature,input_tokens,output_tokens,latency_ms,status,prompt_hash",
    *(
        f"2026-05-{day:02}T{8 + number}:00:00Z,{model},{feature},{900 + 10 * day * number},{100 + day},"
        f"{400 * (number + 1) + day},{'error' if day % 9 == number else 'ok'},p{day % 7 * number}"
        for day in range(1, 31)
        for number, (model, feature) in enumerate(
            [("gpt-4o", "chat"), ("gpt-4o-mini", "search"), ("gpt-4o", "chat"), ("claude-sonnet-4-5", "review")]
        )
    ),
)
BARE: Final = table(
    "timestamp,input_tokens,output_tokens", *(f"2026-05-{day:02}T08:00:00Z,{900 + day},100" for day in range(1, 31))
)
RUNBOOK: Final = b"# Runbook\n\n## Retries\n\nRetry a failed payment three times.\n"


@dataclass(frozen=True, slots=True)
class Talk:
    """Messages of one conversation; what the last one leads to is kept. `file`: a name and its content, attached."""

    name: str
    messages: tuple[str, ...]
    file: tuple[str, bytes] | None = None


USAGE: Final = ("usage.csv", LOG)

TALKS: Final = [
    Talk("cost_analysis", ("Analyze my AI costs",)),
    Talk("follow_up", ("Analyze my AI costs", "and per feature?", "do that for last week"), USAGE),
    Talk("benchmarking", ("compare latency of gpt-4o and gpt-4o-mini in my logs",)),
    Talk("pricing", ("what would GPT-4o-mini cost for this traffic?",)),
    Talk("optimization", ("cut spend 30 %, keep quality",), USAGE),
    Talk("corpus", ("create a knowledge base for our runbooks",), ("runbook.md", RUNBOOK)),
    Talk("synthetic", ("generate 1,000 requests that look like Black Friday",)),
    Talk("reporting", ("report for management, assume gpt-4o",), ("bare.csv", BARE)),
    Talk("technical", ("Are there anomalies in my usage?",)),
    Talk("general", ("What can you do?",)),
    Talk("question", ("make it better",)),
]


async def run(talk: Talk) -> str:
    """Have the conversation with an engine of its own, on whose clock no time passes."""
    async with Bench(clock=StoppedClock()) as bench:
        references: tuple[Reference, ...] = ()
        if talk.file is not None:
            references = (Reference(file_id=(await bench.put(*talk.file)).file_id),)
        told, thread_id = None, ""
        for message in talk.messages:
            told = await bench.ask(message, thread_id=thread_id, references=references)
            thread_id = told.run.thread_id
        assert told is not None
        return transcript(told.events)


@pytest.mark.parametrize("talk", TALKS, ids=[talk.name for talk in TALKS])
async def test_a_run_tells_the_same_each_time(talk: Talk, request: pytest.FixtureRequest) -> None:
    first, second = await run(talk), await run(talk)
    assert first.splitlines() == second.splitlines()
    path = FOLDER / f"{talk.name}.jsonl"
    if request.config.getoption("--update-transcripts"):
        path.write_text(first, "utf-8")
    assert first.splitlines() == path.read_text("utf-8").splitlines()


def test_each_transcript_has_its_conversation() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {talk.name for talk in TALKS}
