"""Messages and replies: one after another, each within its time, and refusals in words for people."""

import json
import os
import queue
import re
import threading
from typing import BinaryIO, Final

import duckdb

from agent_service.tools.sandbox_child.broken_json import malformed_json
from agent_service.tools.sandbox_child.database import Database
from agent_service.tools.sandbox_child.frames import LENGTH, MAX_FRAME_BYTES, Message
from agent_service.tools.sandbox_child.refusal import REPAIR, Refusal

MAX_MESSAGE_CHARACTERS: Final = 400
"""Of what a person is told."""


class Server:
    """Answers one request after another. A thread reads, so that the end of the input ends the process at once."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._database: Database | None = None

    def serve(self) -> None:
        """Work until the input ends."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            reply = json.dumps(self._answer(self._requests.get()), ensure_ascii=False).encode("utf-8", "replace")
            if len(reply) > MAX_FRAME_BYTES:
                reply = b'{"error":"sql","message":"The result is too large; ask for less."}'
            self._sink.write(LENGTH.pack(len(reply)) + reply)
            self._sink.flush()

    def _read(self) -> None:
        while len(head := self._source.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            self._requests.put(json.loads(self._source.read(size)))
        os._exit(0)

    def _answer(self, request: Message) -> Message:
        expired = threading.Event()
        timer = threading.Timer(int(str(request["timeout_ms"])) / 1000, self._interrupt, [expired])
        timer.start()
        try:
            return self._handle(request)
        except Refusal as refusal:
            return {"error": refusal.kind, "message": self._clean(str(refusal))}
        except (duckdb.OutOfMemoryException, MemoryError):
            return {"error": "memory", "message": ""}
        except duckdb.Error as error:
            if expired.is_set():
                return {"error": "timeout", "message": ""}
            kind = "sql" if request["op"] == "select" else "file"
            said = str(error) if kind == "sql" else self._unreadable(str(error))
            return {"error": kind, "message": self._clean(said)}
        except (RecursionError, ValueError, OSError) as error:
            return {"error": "file", "message": self._clean(str(error))}
        finally:
            timer.cancel()

    def _interrupt(self, expired: threading.Event) -> None:
        expired.set()
        if self._database is not None:
            self._database.connection.interrupt()

    def _handle(self, request: Message) -> Message:
        match request["op"]:
            case "open":
                self._forget()
                self._database = Database(request)
                return self._database.source.read(int(str(request["max_unpacked_bytes"])))
            case "scratch":
                self._forget()
                self._database = Database(request)
                return {}
            case "run" if self._database is not None:
                return self._database.run(request)
            case "select" if self._database is not None:
                return self._database.select(request)
            case _:
                self._forget()
                return {}

    def _unreadable(self, said: str) -> str:
        """Return what a person can do about a file that the database cannot read, in place of its own words."""
        database = self._database
        if database is not None and "Malformed JSON" in said:
            return malformed_json(database.path)
        if line := re.search(r"CSV Error on Line: (\d+)", said):
            what = f"Line {int(line[1]):,} of {{name}} does not fit the others"
            return f"{what}: it has another number of columns, or a quote that does not end. {REPAIR}"
        if "parquet" in said.lower() or (database is not None and database.source.kind == "parquet"):
            return "{name} is not a readable Parquet file: it is damaged or was cut off. Upload it again."
        return f"{{name}} cannot be read: {said.partition('Error: ')[2] or said}"

    def _forget(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _clean(self, message: str) -> str:
        """Return the first part of the message, with the file's name in place of where it lies."""
        name = self._database.name if self._database else "the file"
        text = message.replace("{name}", name)
        if self._database:
            text = text.replace(str(self._database.path), name)
        text = text.split("Possible ")[0].split("\n\n")[0].split("  file = ")[0]
        return " ".join(text.split())[:MAX_MESSAGE_CHARACTERS]
