"""The service's settings: every variable, its default, its edges, and what a person is told about a wrong one."""

import json
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from agent_service.mcp_servers import MAX_SERVERS
from agent_service.settings import Settings, development_secret, load_settings
from configuration.environment import Environment
from configuration.variables import SettingsError, variable

SECRET: Final = "s" * 32
PRODUCTION: Final = {"APEX_ENVIRONMENT": "production", "APEX_JWT_SECRET": SECRET}
JWKS: Final = {"APEX_JWKS_URL": "https://issuer.example.com/jwks.json", "APEX_JWT_ALGORITHMS": "RS256"}


def problems(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is wrong; nothing if the settings hold."""
    try:
        load_settings(environ)
    except SettingsError as error:
        return error.problems
    return ()


# ---- Defaults and edges ----


DEFAULTS: Final = {
    "ENVIRONMENT": Environment.DEVELOPMENT,
    "DATA_DIR": Path("var"),
    "DATABASE_URL": "",
    "REDIS_URL": "",
    "ANALYZER_TARGETS": None,
    "GRPC_ADDRESS": "127.0.0.1:50051",
    "GRPC_TLS_CERT": None,
    "GRPC_TLS_KEY": None,
    "GRPC_TLS_CLIENT_CA": None,
    "SERVICE_ADMIN_ADDRESS": "",
    "JWT_SECRET": None,
    "JWKS_URL": "",
    "JWT_ISSUER": "apex",
    "JWT_AUDIENCE": "apex",
    "JWT_ALGORITHMS": "HS256",
    "MODEL": "offline",
    "POLICY_WEBHOOK_URL": "",
    "POLICY_WEBHOOK_SECRET": None,
    "FALLBACK_MODEL": "",
    "LARGER_MODEL": "",
    "OFFERED_MODELS": "",
    "OPENAI_BASE_URL": "",
    "OPENAI_API_KEY": None,
    "ANTHROPIC_BASE_URL": "",
    "ANTHROPIC_API_KEY": None,
    "MCP_SERVERS": {},
    "MAX_MESSAGES_PER_MINUTE": 0,
    "MAX_CONNECTIONS_PER_USER": 3,
    "MAX_UPLOAD_BYTES": 64 * 1024 * 1024,
    "MAX_CONCURRENT_AGENTS": 10,
    "AGENT_EXECUTION_TIMEOUT_S": 30.0,
    "RUN_TIMEOUT_S": 240.0,
    "APPROVAL_TIMEOUT_S": 3_600.0,
    "MAX_HISTORY_SIZE": 100,
}


def test_the_defaults_are_the_contracts() -> None:
    settings = load_settings({})
    assert {name.upper(): value for name, value in settings} == DEFAULTS
    assert settings.is_embedded


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert load_settings({variable(name.lower()): "" for name in DEFAULTS}) == Settings.model_validate({})


def test_variables_of_others_are_ignored() -> None:
    environ = {"APEX_HTTP_ADDRESS": "nonsense", "APEX_TOKEN": "x", "HOME": "/root", "MODEL": "no prefix"}
    assert load_settings(environ) == Settings.model_validate({})


@pytest.mark.parametrize(
    ("environment", "messages"), [("test", 1000), ("development", 300), ("staging", 100), ("production", 30)]
)
def test_messages_per_minute_depend_on_the_environment(environment: str, messages: int) -> None:
    environ = {"APEX_ENVIRONMENT": environment, "APEX_JWT_SECRET": SECRET}
    assert load_settings(environ).messages_per_minute == messages
    assert load_settings({**environ, "APEX_MAX_MESSAGES_PER_MINUTE": "7"}).messages_per_minute == 7


RANGES: Final = [
    ("MAX_MESSAGES_PER_MINUTE", 0, 100_000),
    ("MAX_CONNECTIONS_PER_USER", 1, 1_000),
    ("MAX_UPLOAD_BYTES", 1, 64 * 1024 * 1024),
    ("MAX_CONCURRENT_AGENTS", 1, 1_000),
    ("APPROVAL_TIMEOUT_S", 1, 3_600),
    ("MAX_HISTORY_SIZE", 0, 100),
]


@pytest.mark.parametrize(("name", "least", "most"), RANGES)
def test_a_number_holds_from_its_least_to_its_most(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(load_settings({f"APEX_{name}": str(value)}), name.lower()) == value
    for value in (least - 1, most + 1):
        (problem,) = problems({f"APEX_{name}": str(value)})
        bound = f"greater than or equal to {least}" if value < least else f"less than or equal to {most}"
        assert problem == f"APEX_{name}='{value}': must be {bound}"


@pytest.mark.parametrize("value", ["", "ten", "1.5", "0x10", "1e3"])
def test_a_count_is_a_whole_number(value: str) -> None:
    found = problems({"APEX_MAX_CONCURRENT_AGENTS": value})
    assert [text.startswith("APEX_MAX_CONCURRENT_AGENTS=") for text in found] == [True] * bool(value)


@pytest.mark.parametrize("name", ["AGENT_EXECUTION_TIMEOUT_S", "RUN_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "86401", "soon"])
def test_a_timeout_is_a_positive_finite_time(name: str, value: str) -> None:
    (problem,) = problems({f"APEX_{name}": value})
    assert problem.startswith(f"APEX_{name}={value!r}: must be ")


def test_a_run_may_take_longer_than_a_step() -> None:
    environ = {"APEX_AGENT_EXECUTION_TIMEOUT_S": "30"}
    assert problems({**environ, "APEX_RUN_TIMEOUT_S": "30.001"}) == ()
    (problem,) = problems({**environ, "APEX_RUN_TIMEOUT_S": "30"})
    assert problem == (
        "APEX_RUN_TIMEOUT_S=30: must be greater than APEX_AGENT_EXECUTION_TIMEOUT_S=30: a run has several steps"
    )


# ---- Addresses ----


@pytest.mark.parametrize("value", ["127.0.0.1", "127.0.0.1:", ":50051", "127.0.0.1:65536", "127.0.0.1:x", "50051"])
@pytest.mark.parametrize("name", ["GRPC_ADDRESS", "SERVICE_ADMIN_ADDRESS"])
def test_an_address_is_host_and_port(name: str, value: str) -> None:
    assert problems({f"APEX_{name}": value}) == (
        f"APEX_{name}={value!r}: must be host:port, for example 127.0.0.1:8000",
    )


@pytest.mark.parametrize("environment", ["test", "development"])
@pytest.mark.parametrize("name", ["GRPC_ADDRESS", "SERVICE_ADMIN_ADDRESS"])
def test_on_one_machine_only_loopback_is_listened_on(name: str, environment: str) -> None:
    assert problems({"APEX_ENVIRONMENT": environment, f"APEX_{name}": "[::1]:1"}) == ()
    (problem,) = problems({"APEX_ENVIRONMENT": environment, f"APEX_{name}": "10.0.0.1:1"})
    assert problem.startswith(f"APEX_{name}='10.0.0.1:1': must be a loopback address")


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_a_network_is_served_in_staging_and_production(environment: str) -> None:
    environ = {**PRODUCTION, "APEX_ENVIRONMENT": environment, "APEX_SERVICE_ADMIN_ADDRESS": "0.0.0.0:9000"}
    assert load_settings({**environ, "APEX_GRPC_ADDRESS": "0.0.0.0:50051"}).grpc_address == "0.0.0.0:50051"


# ---- Database, model, TLS ----


@pytest.mark.parametrize(
    ("url", "embedded"),
    [("", True), ("sqlite+aiosqlite:///x.db", True), ("postgresql+asyncpg://postgres@127.0.0.1:5432/apex", False)],
)
def test_the_database_is_embedded_unless_it_is_a_server(url: str, *, embedded: bool) -> None:
    assert load_settings({"APEX_DATABASE_URL": url}).is_embedded is embedded


@pytest.mark.parametrize(
    "url", ["", "redis://127.0.0.1:6379/0", "rediss://:hush@redis.example:6380", "unix:///run/redis.sock"]
)
def test_an_address_of_redis_is_taken_as_it_is(url: str) -> None:
    assert load_settings({"APEX_REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://127.0.0.1:6379", "redis://", "unix://"])
def test_what_is_no_address_of_redis_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="must be a URL such as redis://"):
        load_settings({"APEX_REDIS_URL": url})


def test_the_password_of_redis_is_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({"APEX_REDIS_URL": "redis://apex:hush@redis.example:port/0"})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgres://localhost/apex", "mysql://localhost", "apex.db"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    text = "must begin with postgresql+asyncpg:// or sqlite+aiosqlite://"
    assert problems({"APEX_DATABASE_URL": url}) == (f"APEX_DATABASE_URL={url!r}: {text}",)


@pytest.mark.parametrize(
    "text",
    [
        "shop=postgresql://ann:pw@db/shop?a=b, wiki=sqlite:////var/wiki.db",
        '{"shop": "postgresql://ann:pw@db/shop?a=b", "wiki": "sqlite:////var/wiki.db"}',
    ],
    ids=["list", "json"],
)
def test_databases_to_look_at_have_names(text: str) -> None:
    settings = load_settings({"APEX_ANALYZER_TARGETS": text})
    assert settings.analyzed_databases == {
        "shop": "postgresql://ann:pw@db/shop?a=b",
        "wiki": "sqlite:////var/wiki.db",
    }
    assert "pw" not in repr(settings)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:topsecret@db/shop",
        "shop=mysql://ann:topsecret@db/shop",
        "shop=postgresql://ann:topsecret@db/shop,shop=postgresql://db/b",
        "=postgresql://ann:topsecret@db/shop",
        '{"shop": "postgresql://ann:topsecret@db',
        '{"shop": 3}',
        ",".join(f"d{number}=postgresql://db/{number}" for number in range(21)),
    ],
    ids=["no-name", "mysql", "twice", "empty-name", "no-json", "no-url", "too-many"],
)
def test_a_wrong_list_of_databases_is_told_without_what_is_in_it(text: str) -> None:
    (problem,) = problems({"APEX_ANALYZER_TARGETS": text})
    assert problem.startswith("APEX_ANALYZER_TARGETS=(hidden): must be name=URL")
    assert "topsecret" not in problem
    assert (
        len(
            load_settings(
                {"APEX_ANALYZER_TARGETS": ",".join(f"d{n}=sqlite:///{n}" for n in range(20))}
            ).analyzed_databases
            or {}
        )
        == 20
    )


@pytest.mark.parametrize("model", ["gpt-4o", "openai:", ":gpt-4o", " "])
def test_a_model_is_offline_or_a_providers(model: str) -> None:
    text = "must be 'offline' or 'provider:name', for example openai:gpt-4o"
    assert problems({"APEX_MODEL": model}) == (f"APEX_MODEL={model!r}: {text}",)
    assert load_settings({"APEX_MODEL": "openai:gpt-4o"}).model == "openai:gpt-4o"


@pytest.mark.parametrize("name", ["FALLBACK_MODEL", "LARGER_MODEL"])
def test_the_other_models_are_named_likewise(name: str) -> None:
    assert problems({f"APEX_{name}": "anthropic:claude-sonnet-4-6"}) == ()
    assert problems({f"APEX_{name}": "gpt-4o"})[0].startswith(f"APEX_{name}='gpt-4o': must be 'offline'")


def test_what_a_run_may_ask_for_begins_with_the_default() -> None:
    environ = {"APEX_MODEL": "openai:gpt-4o", "APEX_OFFERED_MODELS": " offline, openai:gpt-4o ,anthropic:x,"}
    assert load_settings(environ).model_names == ("openai:gpt-4o", "offline", "anthropic:x")
    assert load_settings({}).model_names == ("offline",)
    assert problems({"APEX_OFFERED_MODELS": "offline,gpt-4o"})[0].endswith("separated by commas")


def test_the_providers_variables_have_their_own_names_and_a_key_is_never_shown() -> None:
    environ = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "ANTHROPIC_API_KEY": "sk-2"}
    settings = load_settings(environ)
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(settings)
    (problem,) = problems({"ANTHROPIC_BASE_URL": "127.0.0.1"})
    assert problem == "ANTHROPIC_BASE_URL='127.0.0.1': must be a URL such as http://127.0.0.1:11434/v1"


# ---- MCP servers ----

FILES: Final = '{"files": {"command": "files-server", "args": ["/data"], "env": {"TOKEN": "sk-3"}}}'


def test_mcp_servers_stand_in_the_variable_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    file.write_text(FILES)
    for value in (FILES, str(file)):
        (server,) = load_settings({"APEX_MCP_SERVERS": value}).mcp_servers.values()
        assert (server.command, server.args, server.agents) == ("files-server", ("/data",), ("data",))
        assert "sk-3" not in repr(server)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("nowhere.json", "or the path of a file"),
        ('{"token": "sk-4"', "must be JSON such as"),
        ('{"Files": {"command": "x"}}', "the name 'Files' must be"),
        ('{"a__b": {"command": "x"}}', "the name 'a__b' must be"),
        ('{"a": {}}', "a: needs either command or url"),
        ('{"a": {"command": "x", "url": "http://x"}}', "a: needs either command or url"),
        ('{"a": {"url": "ftp://x"}}', "a.url: must begin with http"),
        ('{"a": {"command": "x", "secret_token": "sk-4"}}', "a.secret_token: Extra inputs"),
        ('{"a": {"command": "x", "effects": {"t": "harmless"}}}', "a.effects.t: must be"),
        ('{"a": {"command": "x", "timeout_s": 601}}', "a.timeout_s: must be less"),
    ],
    ids=["no-file", "no-json", "name", "separator", "no-way", "two-ways", "scheme", "unknown", "effect", "timeout"],
)
def test_a_wrong_mcp_server_is_told_without_its_secrets(value: str, told: str) -> None:
    (problem,) = problems({"APEX_MCP_SERVERS": value})
    assert problem.startswith("APEX_MCP_SERVERS=(hidden): ")
    assert told in problem
    assert "sk-4" not in problem


def test_there_may_be_32_mcp_servers() -> None:
    for count in (MAX_SERVERS, MAX_SERVERS + 1):
        value = json.dumps({f"s{number}": {"command": "x"} for number in range(count)})
        assert bool(problems({"APEX_MCP_SERVERS": value})) is (count > MAX_SERVERS)


def test_tls_needs_files_that_exist_and_belong_together(tmp_path: Path) -> None:
    file = tmp_path / "some.pem"
    file.touch()
    cert, key, authority = (f"APEX_GRPC_TLS_{name}" for name in ("CERT", "KEY", "CLIENT_CA"))
    assert problems({cert: str(file), key: str(file), authority: str(file)}) == ()
    assert problems({cert: str(file)}) == (f"{cert} and {key} must be set together",)
    assert problems({authority: str(file)}) == (f"{authority} needs {cert} and {key}",)
    missing = str(tmp_path / "missing.pem")
    assert problems({cert: str(file), key: missing}) == (f"{key}={missing!r}: must be a PEM file; there is none",)


# ---- Tokens ----


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_as_long_as_the_digest(algorithm: str, least: int) -> None:
    environ = {"APEX_JWT_ALGORITHMS": algorithm}
    assert problems({**environ, "APEX_JWT_SECRET": "x" * least}) == ()
    text = f"APEX_JWT_SECRET=(hidden): must be at least {least} bytes long for {algorithm}"
    assert problems({**environ, "APEX_JWT_SECRET": "x" * (least - 1)}) == (text,)
    # Bytes count, not characters.
    assert problems({**environ, "APEX_JWT_SECRET": "ü" * (least // 2)}) == ()


@pytest.mark.parametrize("algorithms", ["none", "HS1", "RS256", "HS256,HS512", ","])
def test_a_secret_signs_with_one_known_algorithm(algorithms: str) -> None:
    expected = f"APEX_JWT_ALGORITHMS={algorithms!r}: must be one of HS256, HS384, HS512 with a secret"
    assert problems({"APEX_JWT_ALGORITHMS": algorithms}) == (expected,)


def test_an_issuers_keys_take_the_place_of_the_secret() -> None:
    settings = load_settings({**JWKS, "APEX_ENVIRONMENT": "production", "APEX_JWT_ALGORITHMS": "RS256, ES256"})
    assert settings.algorithms == ("RS256", "ES256")
    assert problems({**JWKS, "APEX_JWT_SECRET": SECRET}) == (
        "APEX_JWT_SECRET and APEX_JWKS_URL exclude each other: set one of them",
    )


@pytest.mark.parametrize("algorithms", ["", "HS256", "RS256,none", ","])
def test_an_issuers_keys_are_never_used_as_secrets(algorithms: str) -> None:
    (problem,) = problems({**JWKS, "APEX_JWT_ALGORITHMS": algorithms})
    assert problem.startswith(f"APEX_JWT_ALGORITHMS={algorithms or 'HS256'!r}: must name")


@pytest.mark.parametrize("url", ["issuer.example.com", "file:///etc/passwd", "https://", "ftp://issuer.example.com"])
def test_an_issuers_keys_are_fetched_over_http(url: str) -> None:
    text = "must be a URL such as https://issuer.example.com/.well-known/jwks.json"
    assert problems({**JWKS, "APEX_JWKS_URL": url}) == (f"APEX_JWKS_URL={url!r}: {text}",)


def test_an_issuers_keys_are_not_fetched_in_the_clear_in_production() -> None:
    environ = {**JWKS, "APEX_JWKS_URL": "http://127.0.0.1/jwks.json"}
    assert problems(environ) == ()
    assert problems({**environ, "APEX_ENVIRONMENT": "production"}) == (
        "APEX_JWKS_URL='http://127.0.0.1/jwks.json': must begin with https:// in production",
    )


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_development_secrets_end_with_development(environment: str) -> None:
    expected = f"APEX_JWT_SECRET or APEX_JWKS_URL must be set in {environment}"
    assert problems({"APEX_ENVIRONMENT": environment}) == (expected,)
    assert not Environment(environment).is_local


# ---- The policy webhook ----


WEBHOOK: Final = {
    "APEX_POLICY_WEBHOOK_URL": "https://router.example.com/policies",
    "APEX_POLICY_WEBHOOK_SECRET": "s" * 32,
}


def test_the_webhook_and_its_secret_are_set_together() -> None:
    assert problems(WEBHOOK) == ()
    expected = "APEX_POLICY_WEBHOOK_URL and APEX_POLICY_WEBHOOK_SECRET must be set together"
    for name in WEBHOOK:
        assert problems({name: WEBHOOK[name]}) == (expected,)


def test_the_webhooks_secret_is_as_long_as_the_digest() -> None:
    (problem,) = problems({**WEBHOOK, "APEX_POLICY_WEBHOOK_SECRET": "s" * 31})
    assert problem == "APEX_POLICY_WEBHOOK_SECRET=(hidden): must be at least 32 bytes long"


@pytest.mark.parametrize("value", ["router", "ftp://h/x", "https://", "https://ann:secret@h/x"])
def test_the_webhook_is_a_url_without_a_user(value: str) -> None:
    (problem,) = problems({**WEBHOOK, "APEX_POLICY_WEBHOOK_URL": value})
    assert problem.endswith("must be a URL without a user name, such as https://router.example.com/policies")


def test_the_webhook_is_encrypted_outside_of_local_environments() -> None:
    plain = {**WEBHOOK, "APEX_POLICY_WEBHOOK_URL": "http://router/x"}
    assert problems(plain) == ()
    (problem,) = problems({**plain, **PRODUCTION, "APEX_JWT_SECRET": SECRET})
    assert problem == "APEX_POLICY_WEBHOOK_URL='http://router/x': must begin with https:// in production"


# ---- What a person is told ----


def test_every_problem_is_told_at_once() -> None:
    found = problems(
        {
            "APEX_ENVIRONMENT": "prod",
            "APEX_GRPC_ADDRESS": "nowhere",
            "APEX_JWT_SECRET": "too short",
            "APEX_MAX_CONCURRENT_AGENTS": "none",
            "APEX_RUN_TIMEOUT_S": "1",
            "APEX_AGENT_EXECUTION_TIMEOUT_S": "2",
            "APEX_GRPC_TLS_CLIENT_CA": __file__,
        }
    )
    assert [text.partition(":")[0].partition(" needs")[0] for text in found] == [
        "APEX_ENVIRONMENT='prod'",
        "APEX_GRPC_ADDRESS='nowhere'",
        "APEX_MAX_CONCURRENT_AGENTS='none'",
        "APEX_RUN_TIMEOUT_S=1",
        "APEX_GRPC_TLS_CLIENT_CA",
    ]
    assert found[0].endswith("must be 'test', 'development', 'staging' or 'production'")
    assert found[2].endswith("must be a valid integer, unable to parse string as an integer")


def test_a_wrong_setting_brings_no_second_problem_along() -> None:
    # Neither "must be set" for the algorithm that is wrong, nor "must be greater" for a time that is none.
    assert len(problems({**PRODUCTION, "APEX_JWKS_URL": "x", "APEX_AGENT_EXECUTION_TIMEOUT_S": "x"})) == 2
    assert len(problems({"APEX_RUN_TIMEOUT_S": "20", "APEX_AGENT_EXECUTION_TIMEOUT_S": "ten"})) == 1


def test_secrets_are_hidden() -> None:
    secret, password = "hunter2hunter2", "s3cret"
    environ = {"APEX_JWT_SECRET": secret, "APEX_DATABASE_URL": f"mysql://ann:{password}@db:1/x"}
    text = "\n".join(problems(environ))
    assert secret not in text
    assert password not in text
    assert "'mysql://ann:(hidden)@db:1/x'" in text
    assert secret not in repr(load_settings({"APEX_JWT_SECRET": secret * 4}))


def test_an_env_file_lies_beneath_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "apex.env"
    file.write_text("APEX_JWT_ISSUER=ours\nAPEX_MAX_HISTORY_SIZE=5\n")
    settings = load_settings({"APEX_MAX_HISTORY_SIZE": "6"}, file)
    assert (settings.jwt_issuer, settings.max_history_size) == ("ours", 6)


# ---- The development secret ----


def test_the_development_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    secret = development_secret(folder)
    assert len(secret) >= 64
    assert development_secret(folder) == secret
    assert development_secret(tmp_path / "other") != secret
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_racing_starts_get_one_development_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(development_secret, [tmp_path] * 32))) == 1
    assert len(list(tmp_path.iterdir())) == 1
