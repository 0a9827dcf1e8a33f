"""ThreadService: conversations and their messages."""

from dataclasses import dataclass

from agent_service.api.call import Call
from agent_service.api.paging import page_size
from agent_service.api.wire_records import message_to_wire, thread_to_wire
from agent_service.engine.threads import Threads
from generated.apex.agent.v1 import agent_pb2 as pb


@dataclass(frozen=True, slots=True)
class ThreadServicer:
    """The methods carry the names of the contract; its comments say what they do."""

    threads: Threads

    async def CreateThread(self, request: pb.CreateThreadRequest, call: Call) -> pb.CreateThreadResponse:
        thread = await self.threads.create(call.user, request.title)
        call.bind(thread_id=thread.thread_id)
        return pb.CreateThreadResponse(thread=thread_to_wire(thread))

    async def GetThread(self, request: pb.GetThreadRequest, call: Call) -> pb.GetThreadResponse:
        thread = await self.threads.get(call.user, request.thread_id.lower())
        return pb.GetThreadResponse(thread=thread_to_wire(thread))

    async def ListThreads(self, request: pb.ListThreadsRequest, call: Call) -> pb.ListThreadsResponse:
        page = await self.threads.list(
            call.user, query=request.query, page_size=page_size(request.page_size), page_token=request.page_token
        )
        return pb.ListThreadsResponse(
            threads=[thread_to_wire(thread) for thread in page.items], next_page_token=page.next_page_token
        )

    async def UpdateThread(self, request: pb.UpdateThreadRequest, call: Call) -> pb.UpdateThreadResponse:
        call.bind(thread_id=request.thread_id)
        thread_id = request.thread_id.lower()
        if request.HasField("title"):
            thread = await self.threads.rename(call.user, thread_id, request.title)
        else:
            thread = await self.threads.get(call.user, thread_id)
        return pb.UpdateThreadResponse(thread=thread_to_wire(thread))

    async def DeleteThread(self, request: pb.DeleteThreadRequest, call: Call) -> pb.DeleteThreadResponse:
        call.bind(thread_id=request.thread_id)
        await self.threads.delete(call.user, request.thread_id.lower())
        return pb.DeleteThreadResponse()

    async def ListMessages(self, request: pb.ListMessagesRequest, call: Call) -> pb.ListMessagesResponse:
        page = await self.threads.list_messages(
            call.user,
            request.thread_id.lower(),
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return pb.ListMessagesResponse(
            messages=[message_to_wire(message) for message in page.items], next_page_token=page.next_page_token
        )
