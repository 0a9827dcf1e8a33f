"""What went wrong with a language model, in words for people. A provider's own words may quote the request."""

import math
from dataclasses import dataclass
from typing import Final

from pydantic_ai.exceptions import (
    AgentRunError,
    ContentFilterError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelTimeoutError,
    OutputTokenLimitExceeded,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
)

from agent_service.engine.errors import ModelError, Remedy

AGAIN: Final = "Try again in a moment."
OPERATOR: Final = "Tell the operator of this service."
ANOTHER: Final = "Choose another model in the settings of the request."


@dataclass(frozen=True, slots=True)
class _Words:
    """What to say about an error of this kind, `{model}` being the model's name."""

    kind: type[AgentRunError]
    text: str
    remedy: Remedy = Remedy.AGAIN
    suggestions: tuple[str, ...] = (AGAIN, ANOTHER)


_WORDS: Final = (
    _Words(
        OutputTokenLimitExceeded,
        "The language model {model} used up its output tokens before it gave an answer.",
        Remedy.OTHER_MODEL,
        ("Set a higher max_output_tokens.", ANOTHER),
    ),
    _Words(
        ModelContextWindowExceededError,
        "The request and its history are longer than {model} can read at once.",
        Remedy.OTHER_MODEL,
        ("Start a new thread.", "Ask about less at once.", "Choose a model that reads more."),
    ),
    _Words(
        ModelAuthenticationError,
        "The provider of {model} does not accept this service's key.",
        Remedy.OTHER_MODEL,
        (OPERATOR, ANOTHER),
    ),
    _Words(
        ModelNotFoundError,
        "The provider of {model} has no such model, or is not at the address that is set.",
        Remedy.OTHER_MODEL,
        (OPERATOR, ANOTHER),
    ),
    _Words(
        ModelQuotaExceededError,
        "The account of this service with the provider of {model} is used up.",
        Remedy.OTHER_MODEL,
        (OPERATOR, ANOTHER),
    ),
    _Words(ModelRequestTimeout, "The language model {model} stopped answering."),
    _Words(ModelTimeoutError, "The language model {model} does not answer in time."),
    _Words(ModelConnectionError, "The connection to the language model {model} broke, or cannot be made."),
    _Words(UnexpectedModelBehavior, "The language model {model} gave no answer that can be used."),
)
"""The first whose kind it is speaks."""


def of_run(error: AgentRunError, model_name: str, max_requests: int) -> ModelError:
    """Return the error for what ended a run of the library. What the provider said stays in its cause."""
    if isinstance(error, ContentFilterError):
        return refused(model_name)
    if isinstance(error, ModelRateLimitError):
        return busy(model_name, error.retry_after)
    if isinstance(error, UsageLimitExceeded):
        text = f"The language model {model_name!r} did not come to an answer within {max_requests} requests."
        return _error(text, Remedy.OTHER_MODEL)
    for words in _WORDS:
        if isinstance(error, words.kind):
            return _error(words.text.format(model=repr(model_name)), words.remedy, *words.suggestions)
    what = f"HTTP {error.status_code}" if isinstance(error, ModelHTTPError) else type(error).__name__
    return _error(f"The language model {model_name!r} could not answer ({what}).", Remedy.AGAIN)


def refused(model_name: str) -> ModelError:
    """Return the error for a model that declined, or whose provider's filter did."""
    text = f"The language model {model_name!r} declined to answer this."
    return _error(text, Remedy.NONE, "Say in other words what you need.", ANOTHER)


def busy(model_name: str, retry_after_s: float | None) -> ModelError:
    """Return the error for a provider that takes no requests for now; seconds, where it said for how long."""
    if retry_after_s is None:
        return _error(f"The provider of {model_name!r} takes no more requests for now.", Remedy.AGAIN)
    text = f"The provider of {model_name!r} takes no more requests for another {_seconds(retry_after_s)}."
    return _later(text, retry_after_s)


def resting(model_name: str, retry_after_s: float) -> ModelError:
    """Return the error for a provider that has failed several times and is left alone for so many seconds."""
    text = f"The provider of {model_name!r} has failed several times and is asked again in {_seconds(retry_after_s)}."
    return _later(text, retry_after_s)


def _later(text: str, retry_after_s: float) -> ModelError:
    suggestions = (f"Try again in {_seconds(retry_after_s)}.", ANOTHER)
    return ModelError(
        text, Remedy.OTHER_MODEL, retry_after_ms=math.ceil(retry_after_s * 1000), recovery_suggestions=suggestions
    )


def _error(text: str, remedy: Remedy, *suggestions: str) -> ModelError:
    return ModelError(text, remedy, recovery_suggestions=suggestions or (AGAIN, ANOTHER))


def _seconds(seconds: float) -> str:
    return f"{math.ceil(seconds)} s"
