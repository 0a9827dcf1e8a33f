"""The data directory's lock, with real processes, and what opening and closing do to it."""

import os
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from storage.data_dir import DataDirLock
from storage.database import open_database, sqlite_url
from storage.errors import DataDirLockedError, SchemaMismatchError, StorageUnavailableError
from storage.opening import migrate_storage, open_storage
from tests.support.processes import ChildProcess

HOLDER = """
import pathlib, signal, sys
from storage.data_dir import DataDirLock
lock = DataDirLock.acquire(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
signal.pause()
"""


def holder(data_dir: Path, output_file: Path) -> ChildProcess:
    """Start a process that takes the lock and keeps it."""
    repository = Path(__file__).parents[2]
    return ChildProcess(
        [sys.executable, "-c", HOLDER, str(data_dir)], output_file=output_file, env={"PYTHONPATH": str(repository)}
    )


async def test_another_process_keeps_the_service_out(data_dir: Path, tmp_path: Path) -> None:
    with holder(data_dir, tmp_path / "out") as child:
        child.wait_for_output("locked")
        with pytest.raises(DataDirLockedError, match=f"process {child.pid}.*APEX_DATA_DIR") as refusal:
            await open_storage("", data_dir)
        assert (refusal.value.pid, refusal.value.path) == (child.pid, data_dir)
        with pytest.raises(DataDirLockedError):
            await migrate_storage("", data_dir)
        child.kill()
    # The system frees the lock of a process that was killed.
    await (await open_storage("", data_dir)).close()


async def test_the_service_keeps_another_process_out(data_dir: Path, tmp_path: Path) -> None:
    storage = await open_storage("", data_dir)
    with holder(data_dir, tmp_path / "out") as child:
        assert child.wait() != 0
        assert f"in use by process {os.getpid()}" in child.output
    await storage.close()


async def test_a_second_service_in_the_same_process_is_kept_out(data_dir: Path) -> None:
    storage = await open_storage("", data_dir)
    with pytest.raises(DataDirLockedError):
        await open_storage("", data_dir)
    await storage.close()
    await (await open_storage("", data_dir)).close()


async def test_a_child_process_does_not_inherit_the_lock(data_dir: Path, tmp_path: Path) -> None:
    lock = DataDirLock.acquire(data_dir)
    program = "import signal; print('up', flush=True); signal.pause()"
    with ChildProcess([sys.executable, "-c", program], output_file=tmp_path / "out") as child:
        child.wait_for_output("up")
        lock.release()
        DataDirLock.acquire(data_dir).release()


def test_a_release_can_be_repeated(tmp_path: Path) -> None:
    lock = DataDirLock.acquire(tmp_path)
    lock.release()
    other = DataDirLock.acquire(tmp_path)
    lock.release()
    with pytest.raises(DataDirLockedError):
        DataDirLock.acquire(tmp_path)
    other.release()


def test_a_lock_without_a_name_is_still_a_lock(tmp_path: Path) -> None:
    lock = DataDirLock.acquire(tmp_path)
    (tmp_path / "lock").write_text("")
    with pytest.raises(DataDirLockedError, match="another process") as refusal:
        DataDirLock.acquire(tmp_path)
    assert refusal.value.pid is None
    lock.release()


async def test_a_failed_opening_gives_the_lock_back(data_dir: Path) -> None:
    database = open_database(sqlite_url(data_dir / "apex.db"))
    await database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    await database.close()
    with pytest.raises(SchemaMismatchError):
        await open_storage("", data_dir)
    DataDirLock.acquire(data_dir).release()


async def test_the_data_directory_is_private(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    storage = await open_storage("", data_dir)
    assert data_dir.stat().st_mode & 0o777 == 0o700
    await storage.close()


async def test_a_closed_storage_is_unavailable(data_dir: Path) -> None:
    storage = await open_storage("", data_dir)
    await storage.close()
    with pytest.raises(StorageUnavailableError):
        await storage.ping()


@pytest.mark.postgres
async def test_with_postgres_the_directory_is_shared(migrated_postgres_url: str, tmp_path: Path) -> None:
    one = await open_storage(migrated_postgres_url, tmp_path)
    two = await open_storage(migrated_postgres_url, tmp_path)
    await one.close()
    await two.ping()
    await two.close()
