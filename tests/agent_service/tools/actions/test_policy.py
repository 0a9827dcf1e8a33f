"""A policy says exactly what was simulated, and nothing else becomes one."""

import hmac
import json
import re
from pathlib import Path

import pytest

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolError
from agent_service.tools.actions.policy import Match, RouterPolicy, read_policy
from agent_service.tools.actions.tools import action_tools
from agent_service.tools.actions.webhook import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, signature
from storage.memory import MemoryStorage
from tests.support.datasets import NOW, KeptArtifacts, StoppedClock, part
from tests.support.evidence import a_record, an_option, citing, options_record

CALL = "2-optimizations.c1"


async def exported(*options: JsonObject, cite: tuple[str, ...] = ()) -> tuple[JsonObject, bytes]:
    storage = MemoryStorage(lambda: NOW)
    tools = {tool.name: tool for tool in action_tools(storage.plans, storage.files, StoppedClock(), None)}
    run = citing(options_record(*options))
    names = cite or tuple(str(option["id"]) for option in options)
    args = {"name": "ours", "options": [{"tool_call_id": CALL, "option_id": name} for name in names]}
    tool = tools["export_policy"]
    result = (await tool.run(run, tool.args.model_validate(args))).result
    assert isinstance(run.artifacts, KeptArtifacts)
    return result, run.artifacts.kept["router-policy.json"][1]


async def test_every_kind_of_rule_is_taken_over_as_it_was_simulated() -> None:
    how = {
        "routes": [{"target": "gpt-4o-mini", "features": ["faq"], "min_input_tokens": 1, "max_output_tokens": 90}],
        "cache": {},
        "prefix": {"tokens": 1200, "ttl_s": 300, "models": ["gpt-4o"]},
        "trims": [{"max_input_tokens": 4000}, {"percent": 12.5, "features": ["mail"]}],
        "batches": [{"features": ["reports"], "hours": [1, 2]}],
    }
    result, document = await exported(an_option(how=how))
    policy = json.loads(document)
    assert policy == result["policy"]
    nothing: dict[str, object] = {
        **{name: [] for name in ("models", "features")},
        **{f"{bound}_{kind}_tokens": None for bound in ("min", "max") for kind in ("input", "output")},
    }
    assert policy["format"] == "apex.policy/1"
    match = {**nothing, "features": ["faq"], "min_input_tokens": 1, "max_output_tokens": 90}
    assert policy["rules"] == [{"id": "route-1", "match": match, "target": {"model": "gpt-4o-mini"}}]
    assert policy["fallback"] == {"target": {"model": "requested"}}
    assert policy["cache"] == [{"id": "cache-1", "match": nothing, "key": "exact_prompt", "ttl_s": None}]
    assert [(one["prefix_tokens"], one["ttl_s"]) for one in policy["prompt_cache"]] == [(1200, 300)]
    assert [(one["max_input_tokens"], one["percent"]) for one in policy["trim"]] == [(4000, None), (None, 12.5)]
    assert all(one["match"]["max_input_tokens"] is None for one in policy["trim"])
    assert policy["batch"][0]["hours_utc"] == [1, 2]
    assert [(one["option_id"], one["tool_call_id"], one["saving_usd"]) for one in policy["sources"]] == [
        ("route", CALL, 12.5)
    ]
    assert read_policy(document) is not None


async def test_rules_stand_in_the_order_in_which_options_are_cited() -> None:
    options = [an_option(name, how={"routes": [{"target": name}]}) for name in ("one", "two")]
    result, _ = await exported(*options, cite=("two", "one"))
    assert [part(result, "policy", "rules", n, "target", "model") for n in (0, 1)] == ["two", "one"]


async def test_a_rule_that_two_options_share_is_there_once() -> None:
    result, _ = await exported(an_option("one"), an_option("two"))
    rules = part(result, "policy", "rules")
    assert isinstance(rules, list)
    assert len(rules) == 1


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "no rule that a router could apply"),
        ({"routes": [{"target": "m"}], "magic": [1]}, "rules that a policy cannot hold: magic"),
        ({"routes": [{"models": ["m"]}]}, "do not make a policy"),
    ],
    ids=["none", "unknown", "no-target"],
)
async def test_what_is_no_rule_is_refused(how: JsonObject, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        await exported(an_option(how=how))


async def test_the_best_combination_can_be_exported() -> None:
    storage = MemoryStorage(lambda: NOW)
    tool = {one.name: one for one in action_tools(storage.plans, storage.files, StoppedClock(), None)}["export_policy"]
    combined = a_record("combine_options", {"best": an_option("a+b"), "options": [{"id": "a"}]}, call_id="c")
    args = tool.args.model_validate({"options": [{"tool_call_id": "c", "option_id": "a+b"}]})
    result = (await tool.run(citing(combined), args)).result
    assert part(result, "policy", "sources", 0, "option_id") == "a+b"


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[1]", b'{"format": "apex.policy/2"}'], ids=["empty", "bare", "list", "other"]
)
def test_other_files_are_no_policies(document: bytes) -> None:
    assert read_policy(document) is None


# ---- What is documented ----

DOCUMENT = (Path(__file__).parents[4] / "docs" / "router_policy.md").read_text("utf-8")


def test_the_documented_file_is_a_policy_with_every_part() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert read_policy(example.encode()) is not None
    assert json.loads(example).keys() == RouterPolicy.model_fields.keys()
    assert all(f"`{name}`" in DOCUMENT for name in Match.model_fields)


def test_the_documented_signature_is_the_one_that_is_sent() -> None:
    secret, timestamp, body, documented = re.findall(
        r"secret `(.*?)`, the timestamp `(.*?)` and the body\n`(.*?)`, the signature is\n`(.*?)`", DOCUMENT
    )[0]
    independent = hmac.new(secret.encode(), f"{timestamp}.{body}".encode(), "sha256").hexdigest()
    assert documented == f"v1={independent}" == signature(secret.encode(), timestamp, body.encode())
    assert all(f"`{name}`" in DOCUMENT for name in (SIGNATURE_HEADER, TIMESTAMP_HEADER, KEY_HEADER))
