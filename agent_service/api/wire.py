"""The contract's encoding: implements the engine's `EventCodec`."""

from agent_service.api.encoding import EventEncoder
from agent_service.api.wire_commands import command_to_domain, command_to_wire
from agent_service.api.wire_events import event_to_domain
from agent_service.engine.commands import RunCommand
from agent_service.engine.events import Event
from generated.apex.agent.v1 import agent_pb2 as pb


class ProtoCodec:
    """Encodes deterministically: the same event gives the same bytes."""

    def __init__(self) -> None:
        self.encode = EventEncoder().encode

    def decode(self, data: bytes) -> Event:
        return event_to_domain(pb.AgentEvent.FromString(data))

    def encode_command(self, command: RunCommand) -> bytes:
        return command_to_wire(command).SerializeToString(deterministic=True)

    def decode_command(self, data: bytes) -> RunCommand:
        return command_to_domain(pb.RunAgentRequest.FromString(data))
