"""A user with files and the data tools over them, for tests."""

import csv
import gzip
import io
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self

from agent_service.engine.clock import SystemIds
from agent_service.engine.commands import Reference
from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import Workbench
from agent_service.tools.data import data_tools
from agent_service.tools.sandbox import Sandbox, SandboxLimits
from storage.memory_files import MemoryFiles
from storage.memory_state import MemoryState
from storage.records import FileRecord

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TRACE = Path(__file__).parents[1] / "data" / "azure_llm_trace_2023" / "azure_llm_trace_2023_conv.csv.gz"


class StoppedClock:
    """Implements `ports.Clock`: it is always the same moment."""

    def now(self) -> datetime:
        return NOW

    def monotonic_ms(self) -> int:
        return 0


async def no_progress(message: str, fraction: float = 0.0) -> None:
    """Implements `ToolProgress`."""


@dataclass
class KeptArtifacts:
    """Implements `tool.Artifacts` in memory: name → media type and content."""

    kept: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    async def save(
        self, name: str, media_type: str, content: bytes | AsyncIterable[bytes], *, description: str = ""
    ) -> str:
        data = content if isinstance(content, bytes) else b"".join([piece async for piece in content])
        self.kept[name] = (media_type, data)
        return f"artifact-{name}"


def context(message: str = "", references: tuple[Reference, ...] = (), user_id: str = "ann") -> ToolContext:
    """What a tool is told of a run."""
    return ToolContext(
        user_id, frozenset(), "run", "thread", "call", message, references, no_progress, KeptArtifacts(), tuple
    )


class DataBench:
    """Files in memory, a sandbox of one child, and the tools."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self.files = MemoryFiles(MemoryState(lambda: NOW))
        self.sandbox = Sandbox(limits or SandboxLimits(max_children=1, memory_mib=256))
        self.tools = {tool.name: tool for tool in data_tools(Workbench(self.files, self.sandbox, StoppedClock()))}
        self._uploads = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.sandbox.close()
        self.files.remove_copies()

    async def put(self, name: str, content: bytes, *, user_id: str = "ann", media_type: str = "") -> FileRecord:
        """Upload a file; each one is newer than the one before."""
        self._uploads += 1
        upload = self.files.upload(user_id, SystemIds().new(), name, media_type, max_bytes=1 << 30)
        async with upload:
            await upload.write(content)
            return await upload.commit(NOW.replace(microsecond=self._uploads))

    async def call(
        self, tool: str, message: str = "", references: tuple[Reference, ...] = (), **args: object
    ) -> ToolOutput:
        """Call a tool as the dispatcher does."""
        found = self.tools[tool]
        return await found.run(context(message, references), found.args.model_validate(args))

    async def result(self, tool: str, **args: object) -> JsonObject:
        """Call a tool and return its result."""
        found = self.tools[tool]
        return (await found.run(context(), found.args.model_validate(args))).result


def part(value: JsonValue | JsonObject, *path: str | int) -> JsonValue:
    """Return what is at this path of a result."""
    for step in path:
        if isinstance(step, str):
            assert isinstance(value, Mapping), f"no object where {step!r} is looked for"
            value = value[step]
        else:
            assert isinstance(value, Sequence)
            assert not isinstance(value, str)
            value = value[step]
    return value


def items(value: JsonValue | JsonObject, *path: str | int) -> list[JsonObject]:
    """Return the objects of the list at this path."""
    found = part(value, *path)
    assert isinstance(found, Sequence)
    assert not isinstance(found, str)
    objects = [item for item in found if isinstance(item, Mapping)]
    assert len(objects) == len(found)
    return objects


def number(value: JsonValue | JsonObject, *path: str | int) -> float:
    """Return the number at this path."""
    found = part(value, *path)
    assert isinstance(found, (int, float)), f"{path}: {found!r} is no number"
    return found


def table(header: str, *lines: str) -> bytes:
    """Return a CSV file."""
    return ("\n".join([header, *lines]) + "\n").encode()


def read_csv(content: bytes) -> list[dict[str, str]]:
    """Read a CSV file, gzipped or not, in plain Python."""
    plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    return list(csv.DictReader(io.StringIO(plain.decode("utf-8-sig"), newline="")))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile by linear interpolation between the closest ranks."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def unusual(values: Sequence[float], value: float) -> set[str]:
    """Return by which methods, as a textbook has them, the value is unusual among these: iqr, z_score."""
    q1, q3 = percentile(values, 0.25), percentile(values, 0.75)
    mean = sum(values) / len(values)
    stdev = (sum((one - mean) ** 2 for one in values) / (len(values) - 1)) ** 0.5
    found = set()
    if q3 > q1 and not q1 - 1.5 * (q3 - q1) <= value <= q3 + 1.5 * (q3 - q1):
        found.add("iqr")
    if stdev and abs(value - mean) >= 3 * stdev:
        found.add("z_score")
    return found


def usd(amount: Decimal) -> float:
    """Round to 6 decimals."""
    return float(amount.quantize(Decimal("0.000001")))
