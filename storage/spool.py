"""Bytes on their way into the data directory: a private temporary file, then, atomically, content under its hash."""

import asyncio
import os
import secrets
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from storage.data_dir import make_private
from storage.errors import StorageUnavailableError

#: The unit in which content moves: from the spool to the disk, from the disk or the database to a reader.
PIECE_BYTES = 256 * 1024

_INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: `(user_id, sha256)` names it. `size_bytes` is its length."""

    user_id: str
    sha256: str
    size_bytes: int


class ContentDir:
    """Content on this machine's disk, one folder per user; names are hashes, so no user's text becomes a path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, user_id: str, digest: str) -> Path:
        """Return where the content lies, if it is here."""
        return self.user_dir(user_id) / digest

    def user_dir(self, user_id: str) -> Path:
        """Return the folder of a user's content."""
        return self._root / sha256(user_id.encode()).hexdigest()

    def open_spool(self) -> "Spool":
        """Begin a new temporary file."""
        return Spool(make_private(self._root / _INCOMING) / secrets.token_hex(16))

    def place(self, spool: "Spool", content: Content) -> bool:
        """Make a sealed spool the content, durably; False, with the spool left alone, when that was here already."""
        target = self.path(content.user_id, content.sha256)
        if target.exists():
            return False
        make_private(target.parent)
        spool.path.replace(target)
        _sync_directory(target.parent)
        _sync_directory(self._root)
        return True

    def remove(self, user_id: str, digest: str) -> None:
        """Remove the content, if it is here."""
        self.path(user_id, digest).unlink(missing_ok=True)

    def remove_leftovers(self, older_than_s: float) -> None:
        """Remove temporary files of uploads that a crash ended, if they are that many seconds old."""
        limit = time.time() - older_than_s
        for path in (self._root / _INCOMING).glob("*"):
            if path.stat().st_mtime <= limit:
                path.unlink(missing_ok=True)

    def trim(self, limit_bytes: int, spare_younger_than_s: float) -> None:
        """Remove what was used longest ago until `limit_bytes` remain, but nothing that was used just now."""
        found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.contents())
        excess = sum(size for _, size, _ in found) - limit_bytes
        newest = time.time() - spare_younger_than_s
        for used, size, path in found:
            if excess <= 0 or used > newest:
                return
            path.unlink(missing_ok=True)
            excess -= size

    def contents(self) -> list[Path]:
        """Return the paths of all content that is here."""
        return [path for path in self._root.glob("*/*") if path.parent.name != _INCOMING]


class Spool:
    """A temporary file that counts and hashes what it takes. The disk is used in pieces, and outside the event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._hash = sha256()
        self._pending = bytearray()
        # Held while the disk works: a writer whose task was cancelled may be at it still when `discard` comes.
        self._lock = threading.Lock()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.size_bytes += len(data)
        self._pending += data
        if len(self._pending) >= PIECE_BYTES:
            pending, self._pending = self._pending, bytearray()
            await asyncio.to_thread(self._flush, pending)

    def seal(self, user_id: str) -> Content:
        """Write the rest, make it durable, and return what has been taken. Blocks: call it in a thread."""
        self._flush(self._pending)
        with self._lock:
            os.fsync(self._file.fileno())
            self._file.close()
        return Content(user_id, self._hash.hexdigest(), self.size_bytes)

    def discard(self) -> None:
        """Remove the file, if it is still a temporary one. Doing it twice is fine."""
        with self._lock:
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _flush(self, data: bytearray) -> None:
        with self._lock, memoryview(data) as view:
            self._hash.update(view)
            done = 0
            while done < len(view) and not self._file.closed:
                done += self._file.write(view[done:])


def read_piece(path: Path, offset: int) -> bytes:
    """Return up to `PIECE_BYTES` from `offset`. Blocks: call it in a thread. Raises `FileNotFoundError`."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)


def disk_failed(error: OSError) -> StorageUnavailableError:
    """Return what the caller is told when the disk refuses; without the path, which is nobody's business."""
    return StorageUnavailableError(f"the data directory cannot be used: {error.strerror or type(error).__name__}")


def _sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
