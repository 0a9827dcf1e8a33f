"""Whole conversations of one socket as data: inputs, and every effect that they have.

`pytest tests/ws_bridge --update-scenarios` writes what happens into the files; the diff is then reviewed.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from ws_bridge import effects as fx
from ws_bridge import frames as fr
from ws_bridge import items as it
from ws_bridge.limits import SessionLimits
from ws_bridge.session import Session
from ws_bridge.wire.client_frames import binary_frame, client_frame
from ws_bridge.wire.server_frames import frame_json

Json = dict[str, Any]

SCENARIOS = sorted(Path(__file__).parent.joinpath("scenarios").glob("*.json"))
LIMITS: Json = {
    "sign_in_ms": 10_000,
    "open_ms": 10_000,
    "heartbeat_interval_ms": 45_000,
    "heartbeat_timeout_ms": 60_000,
    "idle_ms": 300_000,
    "max_frames_per_minute": 600,
    "max_frame_bytes": 8192,
    "max_pending_frames": 64,
}
SERVER_TIME = "2026-11-21T08:30:00.123456Z"


class Player:
    """Plays the steps of a scenario to one session."""

    def __init__(self, scenario: Json) -> None:
        limits = SessionLimits(**{**LIMITS, **scenario.get("limits", {})})
        self._max_frame_bytes = limits.max_frame_bytes
        self._session = Session("connection-1", limits, 0, attached=scenario.get("attached", True))
        self._now_ms = 0
        self._ids = 0

    def play(self, step: Json) -> list[Json]:
        self._now_ms = step.get("at_ms", self._now_ms)
        self._ids += 1
        (name,) = step.keys() - {"at_ms", "effects"}
        session, now_ms, error_id, value = self._session, self._now_ms, f"error-{self._ids}", step[name]
        inputs: dict[str, Callable[[], list[fx.Effect]]] = {
            "token": lambda: session.on_token(now_ms, value),
            "frame": lambda: session.on_frame(now_ms, self._frame(json.dumps(value)), error_id),
            "text": lambda: session.on_frame(now_ms, self._frame(value), error_id),
            "binary": lambda: session.on_frame(now_ms, binary_frame(), error_id),
            "pong": lambda: session.on_pong(now_ms, value),
            "gone": session.on_gone,
            "slow": session.on_slow,
            "defect": lambda: session.on_defect(error_id),
            "drain": lambda: session.on_drain(value),
            "tick": lambda: session.on_tick(now_ms, error_id),
            "attached": lambda: session.on_attached(now_ms),
            "lost": session.on_lost,
            "ready": lambda: session.on_ready(now_ms, ready(value), SERVER_TIME, error_id),
            "started": lambda: session.on_answer(now_ms, it.Started(**value), error_id),
            "stopped": lambda: session.on_answer(now_ms, it.Stopped(), error_id),
            "decided": lambda: session.on_answer(now_ms, it.Decided(), error_id),
            "failed": lambda: session.on_answer(now_ms, fr.Failure(**value), error_id),
        }
        effects = inputs[name]() if name in inputs else session.on_item(now_ms, item(name, step), error_id)
        return [shown(effect) for effect in effects]

    def _frame(self, text: str) -> fr.ClientFrame:
        return client_frame(text, self._max_frame_bytes, f"00000000-0000-7000-8000-{self._ids:012d}")


def ready(value: Json) -> it.SessionReady:
    runs = tuple(fr.ActiveRun(**run) for run in value.get("active_runs", []))
    return it.SessionReady(value["user_id"], "2026-11-21T09:30:00.000000Z", runs)


def item(name: str, step: Json) -> it.Item:
    value = step[name]
    match name:
        case "event":
            last_seq = value.get("last_seq", value["seq"])
            texts = [
                json.dumps({"run_id": value["run_id"], "seq": seq}).encode()
                for seq in range(value["seq"], last_seq + 1)
            ]
            return it.RunEvents(value["watch_id"], value["seq"], texts, value.get("terminal", False))
        case "watch_ended":
            failure = fr.Failure(**value["failure"]) if "failure" in value else None
            return it.WatchEnded(value["watch_id"], failure)
        case "session_ended":
            return it.SessionEnded(fr.Failure(**value) if value else None)
        case "expiring":
            return it.SessionExpiring(value)
        case "probe":
            return it.SessionProbe()
        case "thread":
            return it.ThreadChanged(fr.ThreadFrame(value["type"], value["thread"]))
        case _:
            raise AssertionError(f"no such step: {name}")


def shown(effect: fx.Effect) -> Json:
    name = type(effect).__name__
    match effect:
        case fx.Send():
            return {name: json.loads(frame_json(effect.frame))}
        case fx.SendEvents():
            return {name: [json.loads(text) for text in effect.texts]}
        case fx.StartRun() | fx.CancelRun() | fx.ResolveApproval():
            return {name: MessageToDict(effect.request, preserving_proto_field_name=True), "token": effect.token}
        case _:
            return {name: asdict(effect)}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_conversation_has_exactly_these_effects(path: Path, request: pytest.FixtureRequest) -> None:
    scenario = json.loads(path.read_text())
    player = Player(scenario)
    seen = [{**step, "effects": player.play(step)} for step in scenario["steps"]]

    if request.config.getoption("--update-scenarios"):
        path.write_text(json.dumps({**scenario, "steps": seen}, indent=2) + "\n")
        return
    assert seen == scenario["steps"]


def test_a_session_shows_its_token_nowhere() -> None:
    session = Session("connection-1", SessionLimits(**LIMITS), 0, attached=True)
    effects = session.on_token(0, "very-secret")

    assert effects == [fx.TokenBrought(), fx.OpenSession("very-secret")]
    assert "very-secret" not in repr(effects) + repr(fr.Authenticate("very-secret")) + repr(vars(session))
