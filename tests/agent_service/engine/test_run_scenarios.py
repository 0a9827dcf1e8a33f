"""`run.py` by scenarios: files in `scenarios/` that hold the inputs and the full trace which must come of them.

`pytest tests/agent_service/engine --update-scenarios` rewrites the traces; the diff is what a reviewer reads.

An input is `{"do": …}` with `emit` (agent, event), `complete` (final_response), `cancel` (reason), `fail` (reason,
message), or `resume`: another worker folds the log through the codec and takes over (`attempt: same`: it goes on after
a decision). Each input comes one second
after the one before. Where an input does not fit, the trace holds `refused` with the reason, and the state stays.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_service.api.wire import ProtoCodec
from agent_service.engine.errors import ApexError, ErrorReason, GrammarError
from agent_service.engine.events import Event, FinalResponse, Usage
from agent_service.engine.run import RunState
from tests.support.bodies import body_from_json, body_to_json
from tests.support.grammar import check_run

FOLDER = Path(__file__).parent / "scenarios"
FILES = sorted(FOLDER.glob("*.json"))
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
USAGE = Usage(input_tokens=100, output_tokens=20, model_requests=2, tool_calls=1, cost_usd=0.25)


class Player:
    """Plays the inputs on a `RunState`."""

    def __init__(self) -> None:
        self.state = RunState("run-1", "thread-1")
        self.events: list[Event] = []
        self.trace: list[dict[str, object]] = []
        self._now = START
        self._codec = ProtoCodec()

    def play(self, step: Mapping[str, object]) -> None:
        """Play one input."""
        try:
            with self.state.all_or_nothing():
                events = self._answer(step)
        except GrammarError as error:
            self.trace.append({"refused": str(error)})
        else:
            self.events += events
            self.trace += [_shown(event) for event in events]
        self._now += timedelta(seconds=1)

    def _answer(self, step: Mapping[str, object]) -> list[Event]:
        span = round((self._now - START).total_seconds() * 1000)
        match step:
            case {"do": "emit", "agent": str(agent), "event": Mapping() as event}:
                return [self.state.next(self._now, agent, body_from_json(event))]
            case {"do": "complete", "event": Mapping() as event}:
                final = body_from_json(event)
                assert isinstance(final, FinalResponse)
                return self.state.complete(self._now, final, span, USAGE)
            case {"do": "cancel", "reason": str(reason)}:
                return self.state.cancel(self._now, reason, span, USAGE)
            case {"do": "fail", "reason": str(reason), "message": str(message)}:
                return self.state.fail(self._now, ApexError(ErrorReason(reason), message), "error-1", span, USAGE)
            case {"do": "resume"}:
                self.state = self._folded(takes_over="attempt" not in step)
                return self.state.resume(self._now)
            case _:
                raise AssertionError(f"no such input: {step}")

    def _folded(self, *, takes_over: bool) -> RunState:
        """Return what another worker makes of the log."""
        state = RunState("run-1", "thread-1")
        for event in self.events:
            state.apply(self._codec.decode(self._codec.encode(event)))
        state.attempt = self.state.attempt + takes_over
        return state


def _shown(event: Event) -> dict[str, object]:
    at_ms = round((event.emit_time - START).total_seconds() * 1000)
    envelope = {"seq": event.seq, "attempt": event.attempt, "at_ms": at_ms, "agent": event.agent_name}
    return {**envelope, "event": body_to_json(event.body)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    scenario = json.loads(path.read_text(encoding="utf-8"))
    player = Player()
    for step in scenario["inputs"]:
        player.play(step)
    if request.config.getoption("--update-scenarios"):
        scenario["trace"] = player.trace
        path.write_text(json.dumps(scenario, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert player.trace == scenario["trace"]
    if player.events:
        check_run(player.events, finished=player.state.ended)


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 15
