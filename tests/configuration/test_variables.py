"""Settings are read from the environment and a file beneath it, and every problem is told at once."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from configuration.addresses import Address
from configuration.variables import Conflict, SettingsError, env_file_argument, read_settings


class Limits(BaseModel):
    """Settings as a process would have them."""

    model_config = ConfigDict(frozen=True)

    address: Address = ""
    least: int = Field(1, ge=0)
    most: int = Field(9, le=9)
    name: str = "apex"
    store_url: str = Field("", max_length=20)
    secret: SecretStr = Field(SecretStr(""), max_length=4)


def conflicts(limits: Limits) -> Iterator[Conflict]:
    if limits.least > limits.most:
        yield ("least", "most"), f"APEX_LEAST={limits.least}: must not be greater than APEX_MOST={limits.most}"


def read(environ: Mapping[str, str], env_file: Path | None = None) -> Limits:
    return read_settings(Limits, environ, env_file, conflicts)


def problems(environ: Mapping[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        read(environ)
    return refused.value.problems


def test_variables_of_others_and_empty_ones_are_ignored() -> None:
    assert read(
        {"APEX_LEAST": "", "APEX_OTHER": "x", "NAME": "no prefix", "apex_name": "small"}
    ) == Limits.model_validate({})


def test_every_problem_is_told_at_once() -> None:
    assert problems({"APEX_ADDRESS": "nowhere", "APEX_LEAST": "ten", "APEX_MOST": "10"}) == (
        "APEX_ADDRESS='nowhere': must be host:port, for example 127.0.0.1:8000",
        "APEX_LEAST='ten': must be a valid integer, unable to parse string as an integer",
        "APEX_MOST='10': must be less than or equal to 9",
    )


def test_a_conflict_is_told_beside_them() -> None:
    assert problems({"APEX_ADDRESS": "nowhere", "APEX_LEAST": "3", "APEX_MOST": "2"}) == (
        "APEX_ADDRESS='nowhere': must be host:port, for example 127.0.0.1:8000",
        "APEX_LEAST=3: must not be greater than APEX_MOST=2",
    )


def test_a_wrong_setting_brings_no_conflict_along() -> None:
    # With the default in place of what is wrong, 10 would be greater than 9.
    assert len(problems({"APEX_LEAST": "10", "APEX_MOST": "ten"})) == 1


def test_secrets_are_hidden() -> None:
    password = "s3cret"
    text = "\n".join(problems({"APEX_SECRET": "hunter2", "APEX_STORE_URL": f"store://ann:{password}@db:1/x"}))
    assert "hunter2" not in text
    assert password not in text
    assert "'store://ann:(hidden)@db:1/x'" in text


def test_the_error_is_fit_to_be_printed() -> None:
    with pytest.raises(SettingsError) as refused:
        read({"APEX_LEAST": "-1", "APEX_MOST": "10"})
    assert str(refused.value).splitlines() == [
        "The settings are wrong:",
        "  APEX_LEAST='-1': must be greater than or equal to 0",
        "  APEX_MOST='10': must be less than or equal to 9",
    ]
    assert refused.value.exit_code == 2


def test_the_environment_stands_above_the_file(tmp_path: Path) -> None:
    file = tmp_path / "apex.env"
    file.write_text('# ours\nAPEX_NAME="a b"\nexport APEX_LEAST=5\nAPEX_MOST\nOTHER=x\n')
    limits = read({"APEX_LEAST": "6"}, file)
    assert (limits.name, limits.least, limits.most) == ("a b", 6, 9)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file or directory"):
        read({}, tmp_path / "missing.env")
    with pytest.raises(SettingsError, match="Is a directory"):
        read({}, tmp_path)
    binary = tmp_path / "binary.env"
    binary.write_bytes(b"APEX_NAME=\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read({}, binary)


def test_the_file_is_named_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert env_file_argument("python -m apex", []) is None
    assert env_file_argument("python -m apex", ["--env-file", "a.env"]) == Path("a.env")
    with pytest.raises(SystemExit) as left:
        env_file_argument("python -m apex", ["--nonsense"])
    assert left.value.code == 2
    assert "usage: python -m apex" in capsys.readouterr().err
