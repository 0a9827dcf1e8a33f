"""Settings: defaults by environment, every problem at once, nothing of others."""

from pathlib import Path

import pytest

from configuration.environment import Environment
from configuration.variables import SettingsError
from ws_bridge.settings import MIN_HEARTBEAT_TIMEOUT_S, load_settings


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        load_settings({f"APEX_{name}": value for name, value in environ.items()})
    return refused.value.problems


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("test", (6000, 300, 45, 60)),
        ("development", (600, 300, 45, 60)),
        ("staging", (600, 600, 30, 90)),
        ("production", (600, 900, 25, 75)),
    ],
)
def test_limits_follow_the_environment(environment: str, expected: tuple[int, float, float, float]) -> None:
    limits = load_settings({"APEX_ENVIRONMENT": environment}).limits
    assert (
        limits.frames_per_minute,
        limits.connection_timeout_s,
        limits.heartbeat_interval_s,
        limits.heartbeat_timeout_s,
    ) == expected


def test_what_is_set_counts_more() -> None:
    settings = load_settings({"APEX_MAX_FRAMES_PER_MINUTE": "7", "APEX_HEARTBEAT_TIMEOUT_S": "7.5"})
    assert (settings.limits.frames_per_minute, settings.limits.heartbeat_timeout_s) == (7, 7.5)
    assert settings.limits.heartbeat_interval_s == 45


def test_defaults_and_variables_of_others() -> None:
    settings = load_settings({"APEX_JWT_SECRET": "x", "APEX_DATABASE_URL": "y", "HOME": "/", "APEX_PUBLIC_URL": ""})
    assert settings.environment is Environment.DEVELOPMENT
    assert settings.http_address == "127.0.0.1:8000"
    assert settings.base_url == "http://127.0.0.1:8000"


def test_every_problem_is_named_at_once_with_name_and_value() -> None:
    found = problems(
        HTTP_ADDRESS="0.0.0.0:80",
        BRIDGE_ADMIN_ADDRESS="9000",
        MAX_FRAME_BYTES="8193",
        MAX_UPLOAD_BYTES="67108865",
        HEARTBEAT_INTERVAL_S="soon",
        ALLOWED_ORIGINS="https://ok.example,nonsense",
    )
    assert len(found) == 6
    for name, value in [
        ("BRIDGE_ADMIN_ADDRESS", "'9000'"),
        ("MAX_FRAME_BYTES", "8193"),
        ("MAX_UPLOAD_BYTES", "67108865"),
        ("HEARTBEAT_INTERVAL_S", "'soon'"),
        ("ALLOWED_ORIGINS", "nonsense"),
        ("HTTP_ADDRESS", "loopback"),
    ]:
        assert any(f"APEX_{name}=" in problem and value in problem for problem in found), (name, found)


def test_a_wrong_environment_brings_no_second_problem_along() -> None:
    (problem,) = problems(ENVIRONMENT="prod", HTTP_ADDRESS="0.0.0.0:80", HEARTBEAT_TIMEOUT_S="1")
    assert problem == "APEX_ENVIRONMENT='prod': must be 'test', 'development', 'staging' or 'production'"


@pytest.mark.parametrize("environment", ["test", "development"])
@pytest.mark.parametrize("name", ["HTTP_ADDRESS", "BRIDGE_ADMIN_ADDRESS"])
def test_a_local_bridge_binds_loopback_only(environment: str, name: str) -> None:
    for address in ("127.0.0.1:0", "127.8.8.8:1", "[::1]:1", "localhost:1"):
        load_settings({"APEX_ENVIRONMENT": environment, f"APEX_{name}": address})
    for address in ("0.0.0.0:1", "[::]:1", "192.168.0.1:1", "apex.example:1"):
        (problem,) = problems(ENVIRONMENT=environment, **{name: address})
        assert "loopback" in problem


def test_a_network_bridge_needs_a_public_url() -> None:
    (problem,) = problems(ENVIRONMENT="production", HTTP_ADDRESS="0.0.0.0:8000")
    assert "APEX_PUBLIC_URL" in problem
    urls = {"APEX_HTTP_ADDRESS": "0.0.0.0:8000", "APEX_PUBLIC_URL": "https://apex.example/"}
    assert load_settings({"APEX_ENVIRONMENT": "production", **urls}).base_url == "https://apex.example"


@pytest.mark.parametrize(
    "url",
    [
        "apex.example",
        "ftp://apex.example",
        "https://apex.example/path",
        "https://",
        "https://a:b",
        "https://me@apex.example",
        "https://a.example,https://b.example",
        "https://a.example, https://b.example",
    ],
)
def test_a_public_url_is_an_origin(url: str) -> None:
    (problem,) = problems(PUBLIC_URL=url)
    assert url in problem


def test_an_env_file_lies_beneath_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "apex.env"
    file.write_text("APEX_AGENT_TARGET=dns:///service:50051\nAPEX_MAX_FRAME_BYTES=1024\n")
    settings = load_settings({"APEX_MAX_FRAME_BYTES": "2048"}, file)
    assert (settings.agent_target, settings.max_frame_bytes) == ("dns:///service:50051", 2048)


def test_origins_of_a_local_bridge_include_the_names_of_loopback() -> None:
    origins = load_settings({}).listening_on(8123).origins
    assert origins.permits("http://localhost:8123")
    assert origins.permits("http://[::1]:8123")
    assert origins.answers_to("127.0.0.1:8123")
    assert not origins.permits("http://localhost:8000")
    assert not origins.permits("https://localhost:8123")


def test_origins_of_a_public_bridge_are_its_own_names_only() -> None:
    environ = {"APEX_ENVIRONMENT": "production", "APEX_PUBLIC_URL": "https://Apex.Example"}
    origins = load_settings(environ).origins
    for origin in ("https://apex.example", "https://APEX.example", "https://apex.example:443"):
        assert origins.permits(origin)
    assert origins.answers_to("apex.example")
    assert not origins.answers_to("127.0.0.1:8000")
    assert not origins.permits("http://apex.example")
    assert not origins.permits_socket(None, bearer=False)
    assert origins.permits_socket(None, bearer=True)


def test_allowed_origins_become_what_browsers_send() -> None:
    allowed = "https://A.example/, http://b.example:80 ,https://c.example:8443/,http://[::1]:3000"
    settings = load_settings({"APEX_ALLOWED_ORIGINS": allowed})
    assert settings.allowed_origins == "https://a.example,http://b.example,https://c.example:8443,http://[::1]:3000"


@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_a_heartbeat_leaves_a_peer_time_to_answer(environment: str) -> None:
    (problem,) = problems(ENVIRONMENT=environment, HEARTBEAT_TIMEOUT_S="4.9")
    assert "APEX_HEARTBEAT_TIMEOUT_S=4.9" in problem
    assert f"at least {MIN_HEARTBEAT_TIMEOUT_S:g} s" in problem
    load_settings({"APEX_ENVIRONMENT": environment, "APEX_HEARTBEAT_TIMEOUT_S": "5"})
    load_settings({"APEX_ENVIRONMENT": "test", "APEX_HEARTBEAT_TIMEOUT_S": "0.1"})
