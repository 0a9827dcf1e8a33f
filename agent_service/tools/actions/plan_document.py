"""A plan as a Markdown document for people."""

from agent_service.tools.actions.plans import EFFORTS, Plan, Step
from agent_service.tools.markdown import cell, plain


def as_markdown(plan: Plan, plan_id: str) -> str:
    """Return the plan: a table to see the whole, then each step with how it is checked and taken back."""
    lines = [
        f"# {plain(plan.title)}",
        "",
        f"Plan {plan_id}. Effort: {', '.join(f'{size} = {span}' for size, span in EFFORTS.items())}.",
        "",
        "| # | Step | What | Owner | Effort | After | Status |",
        "| ---: | :--- | :--- | :--- | :--- | :--- | :--- |",
    ]
    for order, step in enumerate(plan.steps, start=1):
        after = ", ".join(step.depends_on) or "-"
        cells = (str(order), step.id, step.what, step.owner_role, step.effort, after, step.status)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    for order, step in enumerate(plan.steps, start=1):
        lines += ["", f"## {order}. {plain(step.what)}", "", *_details(step)]
    return "\n".join(lines) + "\n"


def _details(step: Step) -> list[str]:
    lines = [
        f"- Owner: {plain(step.owner_role)}",
        f"- Effort: {step.effort} ({EFFORTS[step.effort]})",
        f"- Validation: {plain(step.validation)}",
        f"- Rollback: {plain(step.rollback)}",
    ]
    if step.saving_usd is not None:
        share = "" if step.saving_percent is None else f" ({step.saving_percent:,.1f} %)"
        lines.append(
            f"- Computed saving over the measured span: ${step.saving_usd:,.2f}{share}, option {plain(step.option_id)} "
            f"of call {step.tool_call_id}"
        )
    if step.note:
        lines.append(f"- Note: {plain(step.note)}")
    return lines
