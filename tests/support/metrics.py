"""What a process says about itself at `/metrics`."""

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import DEFAULT_TIMEOUT_S, PAUSE_S, DeadlinePassedError


class Metrics:
    """The metrics at an admin address, `host:port`. Values are read anew each time."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)

    async def value(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; 0 where there is none."""
        families = text_string_to_metric_families(await self._text())
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def becomes(self, name: str, value: float, *, timeout_s: float = DEFAULT_TIMEOUT_S, **labels: str) -> None:
        """Wait until a metric has this value.

        Raises:
            DeadlinePassedError: it does not within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while (found := await self.value(name, **labels)) != value:
            if time.monotonic() > deadline:
                raise DeadlinePassedError(f"not within {timeout_s:g} s: {name} {labels} is {found:g}, not {value:g}")
            await asyncio.sleep(PAUSE_S)

    async def _text(self) -> str:
        """Ask as HTTP/1.0 does: the end of the answer is the end of the connection."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(b"GET /metrics HTTP/1.0\r\nHost: metrics\r\n\r\n")
            head, _, body = (await reader.read(-1)).decode().partition("\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        assert " 200 " in head.partition("\r\n")[0], head
        return body
