"""The `apex` command."""

import asyncio
import os
import runpy
import sys
import uuid
import webbrowser
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NoReturn

import grpc
import typer
from google.protobuf import json_format

from agent_service.processes import run_both
from agent_service.settings import StartError, load_settings
from agent_service.terminal import CHANNEL_OPTIONS, Client, Screen, catalogue_lines, dev_token
from configuration.variables import SettingsError, variables_of
from generated.apex.agent.v1 import agent_pb2

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Target = Annotated[str, typer.Option(envvar="APEX_AGENT_TARGET", help="Address of the agent service.")]
Token = Annotated[str, typer.Option(envvar="APEX_TOKEN", help="Your token; without one, a development token.")]
AsJson = Annotated[bool, typer.Option("--json", help="As the proto's JSON, one message per line.")]
EnvFile = Annotated[Path | None, typer.Option("--env-file", help="A file of NAME=value lines beneath the environment.")]


@app.command()
def up(
    *,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the chat in a browser.")] = True,
    env_file: EnvFile = None,
) -> None:
    """Run the agent service and the bridge together, on this machine."""

    def ready(address: str) -> None:
        typer.echo(f"\n  Apex is ready: {address}\n  Press Ctrl-C to stop.\n")
        if open_browser and sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
            webbrowser.open(address)

    def warn(text: str) -> None:
        typer.echo(text, err=True)

    with _refusing():
        environ = variables_of(os.environ, env_file)
    raise typer.Exit(asyncio.run(run_both(environ, ready, warn)))


@app.command()
def agent(env_file: EnvFile = None) -> None:
    """Run the agent service alone."""
    _run_module("agent_service", env_file)


@app.command()
def bridge(env_file: EnvFile = None) -> None:
    """Run the WebSocket bridge alone."""
    _run_module("ws_bridge", env_file)


@app.command()
def migrate(env_file: EnvFile = None) -> None:
    """Bring the database's schema up to date."""
    from agent_service.app import migrate as migrate_database

    with _refusing():
        asyncio.run(migrate_database(load_settings(os.environ, env_file)))
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

    with _refusing():
        settings = load_settings(os.environ, env_file)
        try:
            typer.echo(issue_token(settings, user, scope, expires_in_s))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--user") from None


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
        # A key of ours: a second call finds the run of the first, and Ctrl-C stops it before we know its id.
        client_message_id=str(uuid.uuid4()),
    )
    _exit_with(_chat(request, target, user_token, as_json=as_json), target)


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
    _exit_with(_replay(run_id, after_seq, target, user_token, as_json=as_json), target)


@app.command()
def agents(*, target: Target = "127.0.0.1:50051", user_token: Token = "", as_json: AsJson = False) -> None:
    """List the service's agents and tools, also those of plug-ins and MCP servers."""
    _exit_with(_agents(target, user_token, as_json=as_json), target)


async def _agents(target: str, token_: str, *, as_json: bool) -> bool:
    screen = Screen(as_json=as_json)
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        catalogue = await Client(channel, token_ or await dev_token(channel, "dev"), screen.warn).catalogue()
    for line in [json_format.MessageToJson(catalogue, indent=None)] if as_json else catalogue_lines(catalogue):
        typer.echo(line)
    return True


async def _chat(request: agent_pb2.RunAgentRequest, target: str, token_: str, *, as_json: bool) -> bool:
    screen = Screen(as_json=as_json)
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        client = Client(channel, token_ or await dev_token(channel, "dev"), screen.warn)
        try:
            async for event in client.run(request):
                screen.show(event)
        except asyncio.CancelledError:
            await client.cancel(request.client_message_id)
            screen.warn("Stopped.")
            raise
        finally:
            screen.close()
    return screen.succeeded


async def _replay(run_id: str, after_seq: int, target: str, token_: str, *, as_json: bool) -> bool:
    screen = Screen(as_json=as_json)
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        client = Client(channel, token_ or await dev_token(channel, "dev"), screen.warn)
        try:
            async for event in client.replay(run_id, after_seq):
                screen.show(event)
        finally:
            screen.close()
    return screen.succeeded


def _exit_with(work: Coroutine[None, None, bool], target: str) -> NoReturn:
    """Run `work` and leave with its exit code; say in words what went wrong."""
    try:
        succeeded = asyncio.run(work)
    except grpc.aio.AioRpcError as error:
        typer.echo(_in_words(error, target), err=True)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(0 if succeeded else EXIT_FAILED)


def _in_words(error: grpc.aio.AioRpcError, target: str) -> str:
    """Return what to tell a person about a call that failed."""
    match error.code():
        case grpc.StatusCode.UNAVAILABLE if not error.trailing_metadata():  # gRPC's own word, not the service's
            return f"No agent service answers at {target}. Start one with `apex up`, or name another with --target."
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"The service at {target} gives no development tokens. Set APEX_TOKEN to a token of yours."
        case code:
            return f"{code.name}: {error.details()}"


@contextmanager
def _refusing() -> Iterator[None]:
    """Leave with the error's words and exit code when the settings or the machine do not allow what was asked."""
    try:
        yield
    except (SettingsError, StartError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from None


def _run_module(name: str, env_file: Path | None) -> None:
    """Run a package as `python -m` does, in this process."""
    sys.argv = [name, *(("--env-file", str(env_file)) if env_file else ())]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def main() -> None:
    """Run the command line."""
    app()
