import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.engine.events import JsonValue
from agent_service.engine.redaction import REDACTED, redact, unredacted


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "userPassword",
        "PASSWD",
        "passphrase",
        "secret",
        "client_secret",
        "clientSecret",
        "secrets",
        "api_key",
        "apiKey",
        "apikey",
        "X-Api-Key",
        "OPENAI_API_KEY",
        "private_key",
        "accessKey",
        "aws_secret_access_key",
        "token",
        "access_token",
        "accessToken",
        "auth-token",
        "refresh_tokens",
        "Authorization",
        "cookie",
        "Set-Cookie",
        "credentials",
    ],
)
@pytest.mark.parametrize("value", ["value", ["a", "b"], {"nested": "value"}])
def test_a_value_under_a_secret_name_is_replaced(name: str, value: JsonValue) -> None:
    assert redact({name: value}) == {name: REDACTED}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_tokens", "ContextTokens"),
        ("output_tokens", 5),
        ("max_tokens", 4096),
        ("max_tokens", "4096"),
        ("max_output_tokens", "4096"),
        ("maxOutputTokens", "4096"),
        ("prompt_tokens", "column"),
        ("completion_tokens", "column"),
        ("cached_tokens", "column"),
        ("total_tokens", "column"),
        ("generated_tokens", "column"),
        ("token_count", "column"),
        ("tokens_per_minute", "1000"),
        ("price_per_token", "0.1"),
        ("tokens", 12),
        ("token", 12),
        ("keyboard", "qwerty"),
        ("primary_key", "id"),
        ("keys", ["a", "b"]),
        ("author", "Ann"),
        ("secretary", "Bob"),
        ("password", None),
    ],
)
def test_what_only_sounds_like_a_secret_is_kept(name: str, value: JsonValue) -> None:
    assert redact({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use sk-abcdefghijklmnop1234 now", "use [redacted] now"),
        ("Authorization: Bearer abcdefghijklmnop.qrstuv=", "Authorization: [redacted]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl", "[redacted]"),
        ("postgresql://root:hunter2@db:5432/prod", "postgresql://[redacted]@db:5432/prod"),
        ("redis://:hunter2@cache/0", "redis://[redacted]@cache/0"),
        ("postgres://u:p@ss@db/prod", "postgres://[redacted]@db/prod"),
        ("host=db password=hunter2 user=root", "host=db [redacted] user=root"),
        ("https://x.test/?api_key=hunter2&page=2", "https://x.test/?[redacted]&page=2"),
        ("AWS_SECRET_ACCESS_KEY=hunter2", "[redacted]"),
        ("AKIAABCDEFGHIJKLMNOP", "[redacted]"),
        ("ghp_abcdefghijklmnopqrstuvwxyz", "[redacted]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest", "[redacted]\nrest"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "[redacted]"),
    ],
)
def test_credentials_inside_a_text_are_replaced(text: str, expected: str) -> None:
    assert redact({"text": text, "list": [text], "map": {"deep": [{"text": text}]}}) == {
        "text": expected,
        "list": [expected],
        "map": {"deep": [{"text": expected}]},
    }


@pytest.mark.parametrize(
    "text",
    [
        "SELECT sum(prompt_tokens) FROM usage WHERE prompt_tokens = 5 AND max_tokens=100",
        "https://example.com:8080/path",
        "the risk-adjusted cost of a bearer of news",
        "What does it cost at 12:30?",
        "ann@example.com",
    ],
)
def test_ordinary_text_is_kept(text: str) -> None:
    assert redact({"text": text}) == {"text": text}


def test_the_arguments_themselves_stay_as_they_are() -> None:
    args: dict[str, JsonValue] = {"password": "hunter2", "list": ["sk-abcdefghijklmnop1234"]}
    redact(args)
    assert args == {"password": "hunter2", "list": ["sk-abcdefghijklmnop1234"]}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("piece", ["a-", "://:", "eyJ", "Bearer ", "token=", "-----BEGIN PRIVATE KEY-----", "a_a "])
def test_hostile_text_takes_no_time(piece: str) -> None:
    redact({"text": piece * 50_000})


SECRETS = st.sampled_from(["sk-abcdefghijklmnop1234", "Bearer abcdefghijklmnop1234", "plain", ""])
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | SECRETS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["api_key", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["password", "token", "text", "rows"]), VALUES, max_size=4))
def test_what_was_taken_out_comes_back(args: dict[str, JsonValue]) -> None:
    assert unredacted(redact(args), args) == args


def test_what_a_person_wrote_stays_as_they_wrote_it() -> None:
    original: dict[str, JsonValue] = {"api_key": "hunter2", "url": "https://a:b@c", "rows": [{"pwd": "x"}, 1], "n": 1}
    edited: dict[str, JsonValue] = {
        "api_key": "hunter3",
        "url": REDACTED,
        "rows": [{"pwd": REDACTED, "more": True}, True, 3],
        "new": REDACTED,
    }
    assert unredacted(edited, original) == {
        "api_key": "hunter3",
        "url": REDACTED,
        "rows": [{"pwd": "x", "more": True}, True, 3],
        "new": REDACTED,
    }
