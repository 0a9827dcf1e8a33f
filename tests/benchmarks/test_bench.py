import asyncio
import json
import math
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks import __main__ as command
from benchmarks.deployments import Mode, Target
from benchmarks.figures import FIGURES, Spread, figure, judge, percentile, ratio, spread
from benchmarks.follower import Follower, RunFailedError
from benchmarks.load import LoadFailedError, run_load
from benchmarks.plan import FULL, RUNS_AT_ONCE, TINY
from benchmarks.proc import Watched
from benchmarks.report import Result, save, table
from benchmarks.socket_client import SocketEndedError
from benchmarks.workload import PIECE_CHARACTERS, Script, Stamp, pieces, script_of, stamp_of, stamped
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port

OF_THE_PRODUCT = {"ack_alone_p50", "ack_alone_p99", "ack_together_p50", "ack_together_p99"}
OF_THE_DATABASE = {"cpu_database", "cpu_paced_database"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode.FLOOR_SINGLE, Mode.FLOOR, Mode.SQLITE])
def test_a_mode_delivers_all_events_and_gives_every_figure(mode: Mode, tmp_path: Path) -> None:
    (measured,) = command.run(TINY, [mode], tmp_path, "").rounds[mode]
    wanted = {line.name for line in FIGURES} - OF_THE_DATABASE - (OF_THE_PRODUCT if mode.is_floor else set())
    assert set(measured) == wanted
    assert all(math.isfinite(value) for value in measured.values())
    assert all(measured[f"events_per_s_{runs}"] > 0 for runs in RUNS_AT_ONCE)


@pytest.mark.slow
@pytest.mark.postgres
def test_postgres_delivers_all_events_and_gives_every_figure(tmp_path: Path, postgres_server: PostgresServer) -> None:
    server_url = postgres_server.url("postgres").replace("postgresql+asyncpg:", "postgresql:")
    (measured,) = command.run(TINY, [Mode.POSTGRES], tmp_path, server_url).rounds[Mode.POSTGRES]
    assert set(measured) == {line.name for line in FIGURES}
    assert measured["first_event_alone_p50"] > 0


def test_the_run_is_that_of_the_aims() -> None:
    assert Script().events == 211
    assert FULL.replayed.events == 10_000
    assert script_of(Script(pause_ms=20).content) == Script(pause_ms=20)


async def test_a_piece_says_when_it_was_emitted_and_how_late() -> None:
    said = [piece async for piece in pieces(Script(pieces=3, pause_ms=1))]
    assert [len(piece) for piece in said] == [PIECE_CHARACTERS] * 3
    stamps = [stamp_of(piece.encode()) for piece in said]
    assert stamps == sorted(stamps, key=lambda stamp: stamp.emitted_ns)
    assert stamp_of(stamped(2**52, 10**9).encode()) == Stamp(2**52, 16**6 - 1)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), (list(range(1, 101)), 0.99, 99), ([7.0], 0.99, 7)],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_median_and_range() -> None:
    assert spread([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0)
    assert figure([{"a": 5.0}, {"a": 1.0}, {"a": 3.0}], "a") == Spread(3.0, 1.0, 5.0)
    assert figure([{"a": 5.0}, {}], "a") is None


def test_a_ratio_is_made_round_by_round() -> None:
    ours, floor = [{"a": 10.0}, {"a": 30.0}, {"a": 90.0}], [{"a": 10.0}, {"a": 10.0}, {"a": 45.0}]
    assert ratio(ours, floor, "a") == Spread(2.0, 1.0, 3.0)
    assert ratio(ours, [{"a": 0.0}] * 3, "a") is None
    assert ratio(ours, [], "a") is None


def test_an_aim_says_by_how_much_it_was_missed() -> None:
    ours = [{"events_per_s_10": 20.0, "cpu_product": 2.0, "idle_product": 40.0}]
    floor = [{"events_per_s_10": 50.0, "cpu_product": 1.0}]
    verdicts = {verdict.aim.name: verdict for verdict in judge(ours, floor)}
    assert set(verdicts) == {"events_per_s_10", "cpu_product", "idle_product"}
    assert verdicts["events_per_s_10"].missed_by == pytest.approx(0.2)
    assert verdicts["cpu_product"].missed_by == 0
    assert verdicts["idle_product"].missed_by == pytest.approx(0.25)


def test_the_table_and_the_file_show_figures_ratios_and_aims(tmp_path: Path) -> None:
    rounds = {
        Mode.FLOOR: [{"events_per_s_10": 50_000.0}],
        Mode.SQLITE: [{"events_per_s_10": 20_000.0, "load_busy": 0.9, "others_busy": 0.5}],
    }
    result = Result(TINY, rounds, 1.0)
    shown = table(result)
    assert "20000 (20000 to 20000) 0.40x" in shown
    assert "0.40 missed by 20%" in shown
    assert "the load generator used 90% of a core with SQLite" in shown
    assert "others used up to 0.50 cores while SQLite was measured" in shown
    save(result, tmp_path / "bench.json")
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert kept["modes"]["sqlite"]["ratios"]["events_per_s_10"] == {"median": 0.4, "low": 0.4, "high": 0.4}


def test_a_load_that_cannot_finish_says_why() -> None:
    nobody = Target(free_port(), "", Watched({}))
    with pytest.raises(LoadFailedError, match="Connect"):
        run_load(nobody, TINY)


def _event(kind: str, seq: int) -> str:
    return json.dumps({"type": kind, "seq": seq, "payload": {}}, separators=(",", ":"))


async def _follow(*frames: str) -> int:
    """What a follower of a script with one piece makes of these frames, which answer its message."""

    async def answer(socket: ServerConnection) -> None:
        await socket.recv()
        for frame in frames:
            await socket.send(frame)
        await socket.wait_closed()

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        follower = Follower(next(iter(server.sockets)).getsockname()[1], "")
        await follower.connect()
        try:
            return (await follower.run(Script(tools=0, pieces=1))).events
        finally:
            follower.close()


async def test_a_follower_counts_every_event() -> None:
    frames = ["agent_started", "partial_result", "final_response", "agent_completed"]
    assert await _follow(*(_event(kind, seq) for seq, kind in enumerate(frames, 1))) == 4


@pytest.mark.parametrize(
    "frames",
    [
        [_event("agent_started", 1), _event("final_response", 3), _event("agent_completed", 4)],
        [_event("agent_started", 0), _event("agent_completed", 0)],
        [_event("agent_started", 1), _event("agent_error", 2)],
        [_event("error", 0)],
    ],
)
async def test_a_follower_refuses_a_run_that_is_not_whole(frames: list[str]) -> None:
    with pytest.raises(RunFailedError):
        await _follow(*frames)


async def test_a_follower_hears_of_a_socket_that_ends() -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(4008, "too slow")

    async with serve(leave, "127.0.0.1", 0, compression=None) as server:
        follower = Follower(next(iter(server.sockets)).getsockname()[1], "")
        await follower.connect()
        with pytest.raises(SocketEndedError, match="4008 too slow"):
            async with asyncio.timeout(5):
                await follower.run(Script())
