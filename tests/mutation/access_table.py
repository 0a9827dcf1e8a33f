"""Who may come in: the Origin and Host checks, and the check of the token on every path."""

import ast
from collections.abc import Iterator
from typing import Final

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.mutation.mutants import Edit, Kind, Mutant, mutant, read, scopes

API: Final = "tests/agent_service/api"
AUTH: Final = f"{API}/test_auth.py"
SERVER: Final = f"{API}/test_server.py"
ATTACH: Final = f"{API}/test_attach.py"
BRIDGE: Final = "tests/ws_bridge"
SIGN_IN: Final = f"{BRIDGE}/test_sign_in.py"
REST: Final = f"{BRIDGE}/test_rest.py"

VERIFIER: Final = "agent_service/api/auth.py"
HANDLERS: Final = "agent_service/api/handlers.py"
SESSION: Final = "agent_service/api/session.py"
GUARD: Final = "ws_bridge/http_guard.py"
ORIGINS: Final = "ws_bridge/origins.py"

WITHOUT_TOKEN: Final = frozenset({"Attach", "CreateDevToken"})
"""By the contract: the sessions of Attach bring tokens of their own."""

SOMEBODY: Final = (
    "__import__('agent_service.engine.context', fromlist=['x']).UserExecutionContext("
    "'ann', frozenset(), 't', __import__('datetime').datetime(2100, 1, 1, tzinfo=__import__('datetime').UTC), 'r')"
)
"""A caller whose token nobody has looked at."""


ORIGIN: Final = (
    mutant(
        Kind.ORIGIN,
        "a socket may be opened by any page",
        f"{SIGN_IN}::test_a_foreign_origin_is_refused_before_the_upgrade",
        Edit(
            "ws_bridge/sockets.py",
            "Sockets._refusal",
            "not self._origins.permits_socket(sign_in.origin, bearer=sign_in.by_header)",
            "False",
        ),
    ),
    mutant(
        Kind.ORIGIN,
        "a socket needs neither Origin nor header",
        f"{SIGN_IN}::test_a_foreign_origin_is_refused_before_the_upgrade[None]",
        Edit(ORIGINS, "Origins.permits_socket", "bearer if origin is None", "True if origin is None"),
    ),
    mutant(
        Kind.ORIGIN,
        "a header stands in for the Origin",
        f"{SIGN_IN}::test_a_foreign_origin_does_not_pass_with_a_header_either",
        Edit(ORIGINS, "Origins.permits_socket", "else self.permits(origin)", "else bearer or self.permits(origin)"),
    ),
    mutant(
        Kind.ORIGIN,
        "every Origin is one of ours",
        f"{SIGN_IN}::test_a_foreign_origin_is_refused_before_the_upgrade",
        Edit(ORIGINS, "Origins.permits", "origin.lower() in self.origins", "True"),
    ),
    mutant(
        Kind.ORIGIN,
        "REST is open to every page",
        f"{REST}::test_foreign_pages_and_names_are_refused",
        Edit(GUARD, "HttpGuard._refusal", "not self._origins.permits(origin)", "False"),
    ),
    mutant(
        Kind.ORIGIN,
        "REST answers under any name",
        f"{REST}::test_foreign_pages_and_names_are_refused",
        Edit(GUARD, "HttpGuard._refusal", "not self._origins.answers_to(hosts[0])", "False"),
    ),
    mutant(
        Kind.ORIGIN,
        "a socket is opened under any name",
        f"{SIGN_IN}::test_the_host_header_grants_no_origin",
        Edit(GUARD, "HttpGuard._refusal", 'if scope["path"] in PROBES:', 'if scope["type"] == "websocket":'),
    ),
    mutant(
        Kind.ORIGIN,
        "there may be several Hosts, or none",
        f"{REST}::test_a_request_names_one_host",
        Edit(GUARD, "HttpGuard._refusal", "len(hosts) != 1 or ", "hosts and "),
    ),
    mutant(
        Kind.ORIGIN,
        "the guard guards nothing",
        f"{REST}::test_foreign_pages_and_names_are_refused",
        Edit("ws_bridge/app.py", "create_app", "app.add_middleware(HttpGuard,", "dict("),
    ),
)

TOKEN: Final = (
    mutant(
        Kind.TOKEN,
        "signatures are not looked at",
        f"{AUTH}::test_hostile_tokens_are_refused",
        Edit(
            VERIFIER, "TokenVerifier._claims", '"verify_exp": False', '"verify_exp": False, "verify_signature": False'
        ),
    ),
    mutant(
        Kind.TOKEN,
        "a token chooses its algorithm",
        f"{AUTH}::test_hostile_tokens_are_refused",
        Edit(
            VERIFIER,
            "TokenVerifier._claims",
            "algorithms=[key.algorithm]",
            "algorithms=[jwt.get_unverified_header(token)['alg']]",
        ),
    ),
    mutant(
        Kind.TOKEN,
        "a key of an issuer is used with any algorithm",
        f"{AUTH}::test_keys_of_other_algorithms_than_the_settings_name_are_no_keys",
        Edit("agent_service/api/jwks.py", "JwksKeys._usable", "key.algorithm_name in self._algorithms", "True"),
    ),
    mutant(
        Kind.TOKEN,
        "tokens for others are accepted",
        f"{AUTH}::test_claims_that_do_not_fit_are_refused",
        Edit(VERIFIER, "TokenVerifier._claims", '"verify_exp": False', '"verify_exp": False, "verify_aud": False'),
    ),
    mutant(
        Kind.TOKEN,
        "tokens of other issuers are accepted",
        f"{AUTH}::test_claims_that_do_not_fit_are_refused",
        Edit(VERIFIER, "TokenVerifier._claims", "                issuer=self._issuer,\n", ""),
    ),
    mutant(
        Kind.TOKEN,
        "tokens never end",
        f"{AUTH}::test_the_end_of_a_token_is_exact",
        Edit(VERIFIER, "TokenVerifier._caller", "expire_time <= self._clock.now()", "False"),
    ),
    mutant(
        Kind.TOKEN,
        "any user name is one",
        f"{AUTH}::test_claims_that_do_not_fit_are_refused",
        Edit(VERIFIER, "TokenVerifier._caller", "not PRINTABLE.fullmatch(user_id)", "False"),
    ),
    mutant(
        Kind.TOKEN,
        "a token may have any length",
        f"{AUTH}::test_a_token_has_a_bounded_length",
        Edit(VERIFIER, "TokenVerifier.verify", "len(token) > MAX_TOKEN_BYTES", "False"),
    ),
    mutant(
        Kind.TOKEN,
        "a token of an unknown key passes",
        f"{AUTH}::test_an_unknown_key_is_looked_for_but_not_too_often",
        Edit(
            VERIFIER,
            "TokenVerifier.verify",
            'raise unauthenticated("The token is not signed with a key of this service.")',
            f"return {SOMEBODY}",
        ),
    ),
    mutant(
        Kind.TOKEN,
        "any authorization is a bearer token",
        f"{AUTH}::test_an_authorization_that_is_no_bearer_token",
        Edit(VERIFIER, "bearer", "authorization[: len(BEARER)].lower() != BEARER", "False"),
    ),
    mutant(
        Kind.TOKEN,
        "the border asks nobody for a token",
        f"{SERVER}::test_every_rpc_refuses_a_token_that_has_ended[AgentService.GetRun]",
        Edit(
            "agent_service/api/interceptors.py",
            "Border._sign_in",
            'await self._verifier.verify(bearer(metadata.get("authorization", "")), request_id)',
            SOMEBODY,
        ),
    ),
    mutant(
        Kind.TOKEN,
        "a session begins with any token",
        f"{ATTACH}::test_a_bad_token_ends_its_session_and_no_other",
        Edit(SESSION, "Session._serve", "await self._verify(first.open_session.token)", SOMEBODY),
    ),
    mutant(
        Kind.TOKEN,
        "a session is renewed with any token",
        f"{ATTACH}::test_a_session_is_not_renewed_with_a_bad_token",
        Edit(SESSION, "Session._renew", "await self._verify(token)", SOMEBODY),
    ),
    mutant(
        Kind.TOKEN,
        "a session outlives its token",
        f"{ATTACH}::test_the_tokens_end_is_announced_and_ends_watches_with_their_last_seq",
        Edit(SESSION, "Session._mind_token", "if remaining_ms <= 0:", "if False:"),
    ),
    mutant(
        Kind.TOKEN,
        "a stream outlives its token",
        f"{API}/test_run_agent.py::test_the_tokens_end_ends_a_stream_with_the_last_seq",
        Edit("agent_service/api/call.py", "Lifetimes.limit", "0 if self._draining else remaining_s", "None"),
    ),
    mutant(
        Kind.TOKEN,
        "production makes development tokens",
        f"{SERVER}::test_production_has_no_development_tokens_and_no_reflection",
        Edit("agent_service/api/server.py", "ApiServer.__init__", "issuer if options.dev_tokens else None", "issuer"),
    ),
    mutant(
        Kind.TOKEN,
        "the settings of production ask for development tokens",
        "tests/agent_service/test_app.py::test_only_a_local_service_makes_tokens_and_shows_its_methods",
        Edit("agent_service/app.py", "api_options", "dev_tokens=settings.environment.is_local", "dev_tokens=True"),
    ),
    mutant(
        Kind.TOKEN,
        "the bridge of production offers development tokens",
        f"{REST}::test_there_is_none_in_production",
        Edit("ws_bridge/app.py", "create_app", "if settings.environment.is_local:", "if True:"),
    ),
    mutant(
        Kind.TOKEN,
        "REST asks nobody for a token",
        f"{REST}::test_without_a_token",
        Edit("ws_bridge/rest.py", "user_token", "raise RefusedError(", "return str("),
    ),
    mutant(
        Kind.TOKEN,
        "a refused session lives on",
        f"{SIGN_IN}::test_a_bad_token_is_an_error_then_4401",
        Edit(
            "ws_bridge/session.py",
            "Session._session_ended",
            "return self._end(failure, error_id, meaning_of(failure.reason).close_code or refused)",
            "return []",
        ),
    ),
    mutant(
        Kind.TOKEN,
        "nobody need sign in in time",
        f"{SIGN_IN}::test_nobody_signs_in_in_time",
        Edit("ws_bridge/session.py", "Session.__init__", "now_ms + limits.sign_in_ms", "1 << 62"),
    ),
    mutant(
        Kind.TOKEN,
        "frames are handled before the sign-in",
        f"{SIGN_IN}::test_frames_before_the_sign_in_wait_and_none_is_lost",
        Edit("ws_bridge/session.py", "Session._work", " and self._phase is Phase.ESTABLISHED", ""),
    ),
    mutant(
        Kind.TOKEN,
        "a token in the subprotocol counts more than the header",
        f"{SIGN_IN}::test_the_header_comes_before_the_subprotocol",
        Edit(
            "ws_bridge/sign_in.py",
            "sign_in_of",
            "if authorization[: len(_BEARER)].lower() == _BEARER:",
            "if not carriers and authorization[: len(_BEARER)].lower() == _BEARER:",
        ),
    ),
    mutant(
        Kind.TOKEN,
        "the token of the subprotocol is dropped",
        f"{SIGN_IN}::test_by_subprotocol_the_server_answers_its_own_name",
        Edit("ws_bridge/sign_in.py", "sign_in_of", "_decoded(carriers[0]) if carriers else None", "None"),
    ),
    mutant(
        Kind.TOKEN,
        "the bridge signs in by a token in the address",
        f"{SIGN_IN}::test_a_token_in_the_query_string_is_nothing",
        Edit(
            "ws_bridge/sign_in.py",
            "sign_in_of",
            "token = _decoded(carriers[0]) if carriers else None",
            "token = __import__('urllib.parse', fromlist=['x']).parse_qs(scope['query_string'].decode())"
            ".get('token', [None])[0]",
        ),
        Edit("ws_bridge/line.py", "LineProtocol.run_asgi", 'self.scope["query_string"] = b""', "pass"),
    ),
)


def route_mutants() -> Iterator[Mutant]:
    """Yield a mutant for each route of REST that takes the caller's token, in which it takes one of its own."""
    for path in ("ws_bridge/rest.py", "ws_bridge/rest_files.py"):
        for scope, node in scopes(ast.parse(read(path))):
            if isinstance(node, ast.AsyncFunctionDef) and "token: Token" in ast.unparse(node.args):
                name = f"the route {node.name} brings a token of its own"
                own = "token: __import__('typing').Annotated[str, __import__('fastapi').Depends(lambda: 'token-alice')]"
                edit = Edit(path, scope, "token: Token", own)
                yield mutant(Kind.TOKEN, name, f"{REST}::test_every_route_refuses_who_brings_no_token", edit)


def rpc_mutants() -> Iterator[Mutant]:
    """Yield a mutant for each rpc that needs a token, in which it needs none. A new rpc is in it by itself."""
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            if method.name not in WITHOUT_TOKEN:
                yield mutant(
                    Kind.TOKEN,
                    f"{service.name}.{method.name} needs no token",
                    f"{SERVER}::test_every_rpc_refuses_a_token_that_has_ended[{service.name}.{method.name}]",
                    Edit(HANDLERS, "WITHOUT_TOKEN", '"Attach", ', f'"Attach", "{method.name}", '),
                )
