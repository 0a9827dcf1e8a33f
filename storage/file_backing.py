"""Where content lives beside this machine's disk: nowhere (embedded), or in rows that every machine reads."""

import asyncio
from pathlib import Path
from typing import Protocol

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.schema import file_chunks
from storage.spool import PIECE_BYTES, Content, read_piece


class Backing(Protocol):
    """Keeps content for other machines."""

    async def save(self, connection: AsyncConnection, content: Content, path: Path) -> None:
        """Keep what the file at `path` holds, in the connection's transaction."""
        ...

    async def piece(self, user_id: str, digest: str, position: int) -> bytes | None:
        """Return the piece that begins at `position * PIECE_BYTES`; None if it is not there."""
        ...


class NoBacking:
    """The data directory is the only place: one service, one machine."""

    async def save(self, connection: AsyncConnection, content: Content, path: Path) -> None:
        """Nothing to do."""

    async def piece(self, user_id: str, digest: str, position: int) -> bytes | None:
        return None


class ChunkRows:
    """Rows of `PIECE_BYTES`, one in memory at a time; the data directory is a cache of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, connection: AsyncConnection, content: Content, path: Path) -> None:
        for position, offset in enumerate(range(0, content.size_bytes, PIECE_BYTES)):
            data = await asyncio.to_thread(read_piece, path, offset)
            await connection.execute(
                insert(file_chunks).values(user_id=content.user_id, sha256=content.sha256, position=position, data=data)
            )

    async def piece(self, user_id: str, digest: str, position: int) -> bytes | None:
        query = select(file_chunks.c.data).where(
            file_chunks.c.user_id == user_id, file_chunks.c.sha256 == digest, file_chunks.c.position == position
        )
        return (await self._database.read(lambda connection: connection.execute(query))).scalar_one_or_none()
