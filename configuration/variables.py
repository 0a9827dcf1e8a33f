"""Environment variables as a frozen value: all of them are checked, and every problem is told at once."""

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

PREFIX: Final = "APEX_"
"""Of every variable of ours."""

PROVIDERS: Final = ("openai_", "anthropic_")
"""Fields that begin so are variables of the providers' own, which their other programs read, too."""

HIDDEN: Final = ("secret", "api_key", "mcp_servers")
"""Fields whose names hold one of these are never shown."""

Conflict: TypeAlias = tuple[Collection[str], str]
"""What is wrong between fields that are fine one by one: their names, and the words for a person."""

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class SettingsError(Exception):
    """The settings do not hold. `problems` names every one of them, values included, secrets hidden."""

    exit_code: Final = 2

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n  ".join(("The settings are wrong:", *problems)))
        self.problems = tuple(problems)


def variable(field: str) -> str:
    """Return the variable of a field: `http_address` → `APEX_HTTP_ADDRESS`, `openai_api_key` → `OPENAI_API_KEY`."""
    return field.upper() if field.startswith(PROVIDERS) else f"{PREFIX}{field.upper()}"


def variables_of(environ: Mapping[str, str], env_file: Path | None) -> Mapping[str, str]:
    """Return `environ` on top of the file's NAME=value lines. Raises `SettingsError` if there is no such file."""
    if env_file is None:
        return environ
    try:
        with env_file.open(encoding="utf-8") as lines:
            found = dotenv_values(stream=lines)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError((f"--env-file {str(env_file)!r} cannot be read: {reason}",)) from None
    return {**{name: value for name, value in found.items() if value is not None}, **environ}


def read_settings(
    model: type[SettingsT],
    environ: Mapping[str, str],
    env_file: Path | None,
    conflicts: Callable[[SettingsT], Iterable[Conflict]],
) -> SettingsT:
    """Read the fields of `model` from `environ`, and from `env_file` beneath it. Raises `SettingsError`.

    Variables of others are ignored; an empty one is one that is not set. `conflicts` yields what is wrong between
    fields, and is not listened to about a field that is wrong by itself: what it would have meant, nobody knows.
    """
    variables = variables_of(environ, env_file)
    values = {field: value for field in model.model_fields if (value := variables.get(variable(field)))}
    wrong: frozenset[str] = frozenset()
    problems: list[str] = []
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors()]
        wrong = frozenset(str(item["loc"][0]) for item in error.errors())
        settings = model.model_validate({field: value for field, value in values.items() if field not in wrong})
    problems += [text for fields, text in conflicts(settings) if not wrong.intersection(fields)]
    if problems:
        raise SettingsError(problems)
    return settings


def _problem(item: ErrorDetails) -> str:
    field = str(item["loc"][0])
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    return f"{variable(field)}={_shown(field, str(item['input']))}: {message}"


def _shown(field: str, value: str) -> str:
    """Return a value as it may be shown: secrets and passwords hidden."""
    if any(part in field for part in HIDDEN):
        return "(hidden)"
    if "://" not in value:
        return repr(value)
    scheme, _, rest = value.partition("://")
    account, at, place = rest.rpartition("@")
    return repr(f"{scheme}://{account.partition(':')[0]}:(hidden)@{place}" if at and ":" in account else value)


def env_file_argument(program: str, arguments: Sequence[str]) -> Path | None:
    """Return the file of `--env-file FILE` on the command line. Leaves with exit code 2 for anything else."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--env-file", type=Path, help="a file of NAME=value lines beneath the environment")
    given: Path | None = parser.parse_args(arguments).env_file
    return given
