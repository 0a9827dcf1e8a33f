"""The data directory: what lies where in it, and the lock that lets one service use it at a time."""

import fcntl
import os
from pathlib import Path
from typing import Self

from storage.errors import DataDirLockedError

DATABASE_NAME = "apex.db"
_LOCK_NAME = "lock"
_FILES_NAME = "files"
#: Nobody but the service's own account reads what users bring.
PRIVATE_DIR_MODE = 0o700


def make_private(path: Path) -> Path:
    """Make a directory, with its parents, that only this account can enter. An existing one stays as it is."""
    path.mkdir(mode=PRIVATE_DIR_MODE, parents=True, exist_ok=True)
    return path


def database_path(data_dir: Path) -> Path:
    """Return where the embedded database lies."""
    return data_dir / DATABASE_NAME


def files_path(data_dir: Path) -> Path:
    """Return where the content of files lies."""
    return data_dir / _FILES_NAME


class DataDirLock:
    """An exclusive lock on a data directory, held from `acquire` to `release`; the system frees it with the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, data_dir: Path) -> Self:
        """Take the lock, making the directory if need be.

        Raises:
            DataDirLockedError: somebody has it, in this process or another.
        """
        path = make_private(data_dir) / _LOCK_NAME
        # Python opens files so that child processes do not inherit them: a tool's child never keeps the lock.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # `flock` belongs to this opening of the file, so that it also keeps out a second service in this process.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _read_pid(descriptor)
            os.close(descriptor)
            raise DataDirLockedError(data_dir, owner) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back. Doing it twice is fine. The file stays: to remove it would race with the next owner."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read_pid(descriptor: int) -> int | None:
    written = os.pread(descriptor, 32, 0).strip()
    return int(written) if written.isdigit() else None
