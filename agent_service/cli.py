"""The `apex` command."""

import asyncio
import os
import runpy
import sys
import webbrowser
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Final, NoReturn

import grpc
import typer

from agent_service.processes import run_both
from agent_service.settings import Settings, SettingsError, load_settings
from agent_service.terminal import CHANNEL_OPTIONS, Client, Screen, dev_token
from generated.apex.agent.v1 import agent_pb2

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
EXIT_INTERRUPTED: Final = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Target = Annotated[str, typer.Option(envvar="APEX_AGENT_TARGET", help="Address of the agent service.")]
Token = Annotated[str, typer.Option(envvar="APEX_TOKEN", help="Your token; without one, a development token.")]
AsJson = Annotated[bool, typer.Option("--json", help="One event per line, as the proto's JSON.")]
EnvFile = Annotated[Path | None, typer.Option("--env-file", help="A file of NAME=value lines beneath the environment.")]


@app.command()
def up(*, open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the chat.")] = True) -> None:
    """Run the agent service and the bridge together, on this machine."""

    def ready(address: str) -> None:
        typer.echo(f"\n  Apex is ready: {address}\n  Press Ctrl-C to stop.\n")
        if open_browser and sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
            webbrowser.open(address)

    raise typer.Exit(asyncio.run(run_both(os.environ, ready)))


@app.command()
def agent() -> None:
    """Run the agent service alone."""
    _run_module("agent_service")


@app.command()
def bridge() -> None:
    """Run the WebSocket bridge alone."""
    _run_module("ws_bridge")


@app.command()
def migrate(env_file: EnvFile = None) -> None:
    """Bring the database's schema up to date."""
    from agent_service.app import migrate as migrate_database

    asyncio.run(migrate_database(_settings(env_file)))
    typer.echo("The database is up to date.")


@app.command()
def token(
    user: Annotated[str, typer.Option(help="The user the token is for.")] = "dev",
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces.")] = "",
    expires_in_s: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds until it expires.")] = 3600,
    env_file: EnvFile = None,
) -> None:
    """Print a token that this service's secret signs: for scripts and first steps."""
    from agent_service.app import issue_token

    try:
        typer.echo(issue_token(_settings(env_file), user, scope, expires_in_s))
    except SettingsError as error:
        _refuse(error)


@app.command()
def chat(
    message: Annotated[str, typer.Argument(help="What to ask.")],
    *,
    thread: Annotated[str, typer.Option(help="Go on in this thread.")] = "",
    agent_name: Annotated[str, typer.Option("--agent", help="Ask this agent directly.")] = "",
    file: Annotated[list[str] | None, typer.Option(help="Id of an uploaded file to refer to.")] = None,
    target: Target = "127.0.0.1:50051",
    user_token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Ask something, watch the agents work, and read the answer. Exit code 0 only on success."""
    request = agent_pb2.RunAgentRequest(
        content=message,
        thread_id=thread,
        agent=agent_name,
        references=[agent_pb2.Reference(file_id=file_id) for file_id in file or ()],
    )
    _exit_with(_chat(request, target, user_token, as_json=as_json))


@app.command()
def replay(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    *,
    after_seq: Annotated[int, typer.Option(min=0, help="Only events after this one.")] = 0,
    target: Target = "127.0.0.1:50051",
    user_token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Show a run's events again, and what still comes. Exit code 0 only if the run succeeded."""
    _exit_with(_replay(run_id, after_seq, target, user_token, as_json=as_json))


async def _chat(request: agent_pb2.RunAgentRequest, target: str, token_: str, *, as_json: bool) -> bool:
    screen, run_id = Screen(as_json=as_json), ""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        client = Client(channel, token_ or await dev_token(channel, "dev"))
        try:
            async for event in client.run(request):
                run_id = event.run_id
                screen.show(event)
        except asyncio.CancelledError:
            if run_id:
                await client.cancel(run_id)
            raise
        finally:
            screen.close()
    return screen.succeeded


async def _replay(run_id: str, after_seq: int, target: str, token_: str, *, as_json: bool) -> bool:
    screen = Screen(as_json=as_json)
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        client = Client(channel, token_ or await dev_token(channel, "dev"))
        try:
            async for event in client.replay(run_id, after_seq):
                screen.show(event)
        finally:
            screen.close()
    return screen.succeeded


def _exit_with(work: Coroutine[None, None, bool]) -> None:
    """Run `work` and leave with its exit code; say in words what went wrong."""
    try:
        succeeded = asyncio.run(work)
    except grpc.aio.AioRpcError as error:
        typer.echo(f"{error.code().name}: {error.details()}", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(0 if succeeded else EXIT_FAILED)


def _settings(env_file: Path | None) -> Settings:
    try:
        return load_settings(os.environ, env_file)
    except SettingsError as error:
        _refuse(error)


def _refuse(error: SettingsError) -> NoReturn:
    for problem in error.problems:
        typer.echo(problem, err=True)
    raise typer.Exit(EXIT_SETTINGS)


def _run_module(name: str) -> None:
    """Run a package as `python -m` does, in this process."""
    sys.argv = [name]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def main() -> None:
    """Run the command line."""
    app()
