"""Plans in the chat: made once, then kept track of, without measuring and computing everything again."""

from agent_service.engine.events import AgentProgress, ProgressStage, ToolExecuting
from tests.support.conversations import Bench, Told
from tests.support.datasets import part


def called(told: Told) -> list[str]:
    return [call.tool_name for call in told.bodies(ToolExecuting)]


async def test_a_step_that_is_done_is_noted_by_the_actions_agent_alone() -> None:
    async with Bench() as bench:
        made = await bench.ask("Make a plan to cut costs by 20 %")
        told = await bench.ask("step 1 is done", thread_id=made.run.thread_id)
        asked = await bench.ask("what is the status of the plan?", thread_id=made.run.thread_id)
    assert "create_action_plan" in called(made)
    assert called(told) == called(asked) == ["list_datasets", "describe_dataset", "track_action"]
    plan = part(made.result("create_action_plan"), "plan_id")
    assert part(told.result("track_action"), "plan_id") == plan
    assert told.final.content.startswith("**s1 is done now; 1 of ")
    assert asked.final.content.startswith("**1 of ")
    (planned,) = [body for body in told.bodies(AgentProgress) if body.stage is ProgressStage.PLANNED]
    assert [step.agent_name for step in planned.planned_steps] == ["actions"]
