"""What the calls of this step found, as an answer needs it."""

from collections.abc import Sequence
from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.llm.offline.conversation import Exchange, child, children, text

SUCCESS: Final = "success"
"""The status of a call that went well."""


_LATENCY: Final = "latency_analysis"
"""The tool that is asked for the models that a message names before it is known which the data has."""

NO_SUCH_COLUMN: Final = "has no column"
"""What a tool says of a correction that names a column which is not there."""


def misplaced(exchange: Exchange) -> bool:
    """Return whether a call failed because a correction is about another dataset's column."""
    return exchange.status != SUCCESS and bool(exchange.args.get("columns")) and NO_SUCH_COLUMN in exchange.error


class Facts:
    """The results of this step's calls, by tool; a what-if is a cost breakdown that declares the model absent."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        good_at = {exchange.tool_name for exchange in exchanges if exchange.status == SUCCESS}
        # What went well without the correction has not failed.
        exchanges = [one for one in exchanges if not (misplaced(one) and one.tool_name in good_at)]
        looks = [exchange for exchange in exchanges if exchange.tool_name == "usage_summary"]
        self.unfiltered = len(looks) > 1 and looks[0].status != SUCCESS and looks[-1].status == SUCCESS
        # A result that was too large to pass on is no result here either: its summary says where it went.
        failed = [
            exchange
            for index, exchange in enumerate(exchanges)
            if (exchange.status != SUCCESS or exchange.result is None)
            # What went well for the part that is there has not failed.
            and not any(later.tool_name == exchange.tool_name == _LATENCY for later in exchanges[index + 1 :])
        ]
        self.failed = [] if self.unfiltered else failed
        self.filter_error = failed[0].error if self.unfiltered else ""
        good = [exchange for exchange in exchanges if exchange.status == SUCCESS and exchange.result is not None]
        self.what_ifs = [exchange for exchange in good if _is_what_if(exchange)]
        self._by_tool = {exchange.tool_name: exchange.result for exchange in good if not _is_what_if(exchange)}

    def of(self, tool_name: str) -> JsonObject | None:
        """Return the last good result of this tool."""
        return self._by_tool.get(tool_name)

    @property
    def dataset(self) -> JsonObject | None:
        """A result that names the dataset, as each one does; None where nothing was found.

        The list of datasets only says which one comes first, so any other is preferred, and a what-if is the last.
        """
        opened = [result for name, result in self._by_tool.items() if name != "list_datasets"]
        what_ifs = [exchange.result for exchange in self.what_ifs]
        return next(iter([*(opened or self._by_tool.values()), *what_ifs]), None)

    def missing(self) -> list[JsonObject]:
        """Return what the data lacks, each column once."""
        found: dict[str, JsonObject] = {}
        for result in self._by_tool.values():
            for entry in children(result, "missing"):
                found.setdefault(text(entry, "column"), entry)
        return list(found.values())


def _is_what_if(exchange: Exchange) -> bool:
    return exchange.tool_name == "cost_breakdown" and child(exchange.args, "columns", "model") == ""
