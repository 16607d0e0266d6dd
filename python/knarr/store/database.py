"""The engine's one SQLite database: `<data-root>/state.db`, WAL.

Durability: an ordinary `transaction()` is written without waiting for the disk (a power cut may
take the last second of container records); `durable()` waits for it (images and volumes: what was
acknowledged stays). Checkpoints, which do wait, run in a thread of the caller's choosing.

Locking: one connection and one re-entrant lock around it. Statements are short; the event loop
calls the ordinary kind itself, and `durable()` belongs into a thread.

A removal needs room before it frees any: `state.db-reserve` holds a little back, which a DELETE gives up where the disk
is full, and which is taken again when there is plenty.

Migrations: `MIGRATIONS[n]` takes a database from version n to n + 1 (`PRAGMA user_version`), each in
one transaction. Never edit one that was released: append.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from knarr.errors import Corrupt, KnarrError, Unavailable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MIGRATIONS", "Database"]

RESERVE = 1 << 20  # bytes: pages of the write-ahead log for a dozen removals, by far

MIGRATIONS: list[str] = [
    """
    CREATE TABLE image (
        id TEXT PRIMARY KEY,                -- digest of the config: sha256:<hex>
        manifest_digest TEXT NOT NULL,
        manifest_type TEXT NOT NULL,
        platform TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        size INTEGER NOT NULL,
        record TEXT NOT NULL                -- JSON
    ) WITHOUT ROWID;
    CREATE TABLE image_reference (
        reference TEXT PRIMARY KEY,         -- canonical: host/repository:tag
        image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX image_reference_image ON image_reference(image_id);
    CREATE TABLE repository_digest (
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        PRIMARY KEY (repository, digest, image_id)
    ) WITHOUT ROWID;
    CREATE INDEX repository_digest_image ON repository_digest(image_id);
    CREATE TABLE layer (
        chain_id TEXT PRIMARY KEY,
        diff_id TEXT NOT NULL,
        blob_digest TEXT NOT NULL,
        parent TEXT NOT NULL,               -- chain ID, or empty
        size INTEGER NOT NULL               -- bytes unpacked
    ) WITHOUT ROWID;
    CREATE TABLE container (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        image_id TEXT NOT NULL,             -- empty: a root file system of no image
        record TEXT NOT NULL,               -- JSON: what changes rarely
        state TEXT NOT NULL                 -- JSON: what changes often
    ) WITHOUT ROWID;
    CREATE INDEX container_image ON container(image_id);
    CREATE TABLE volume (
        name TEXT PRIMARY KEY,
        record TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE network (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
]


class Database:
    """One open database. Thread-safe."""

    def __init__(self, path: str) -> None:
        """Open or make it, and bring it to the newest version.

        Raises Corrupt (not a database, or damaged), Unsupported (made by a newer knarr), Unavailable.
        """
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._has_reserve = False
        try:
            self._connection = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            os.chmod(path, 0o600)
            run = self._connection.execute
            run("PRAGMA journal_mode=WAL")
            run("PRAGMA synchronous=NORMAL")
            run("PRAGMA foreign_keys=ON")
            run("PRAGMA wal_autocheckpoint=0")  # it would wait for the disk in the middle of a start
            run("PRAGMA cache_size=-4000")
            self._migrate()
            self._mind_reserve()
            self._sync_directory()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise Unavailable(f"{path}: cannot open the database of records: {error}") from error
            raise Corrupt(f"{path}: not a usable database ({error}); move it away to start with none") from error

    def _sync_directory(self) -> None:
        """Make the names of the database's files durable, once."""
        descriptor = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _migrate(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise Unsupported(
                f"{self.path}: was written by a newer knarr (format {version}, this one knows {len(MIGRATIONS)}); "
                "install that version again"
            )
        for number in range(version, len(MIGRATIONS)):
            with self.durable():
                for statement in _statements(MIGRATIONS[number]):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={number + 1}")

    def _mind_reserve(self) -> None:
        """Give the reserve up where the disk is full, take it where there is plenty."""
        path = f"{self.path}-reserve"
        try:
            found = os.statvfs(os.path.dirname(self.path) or ".")
            free = (found.f_bavail if os.geteuid() else found.f_bfree) * found.f_frsize
            if free < RESERVE:
                self._has_reserve = False
                os.truncate(path, 0)
            elif not self._has_reserve and free > 4 * RESERVE:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, RESERVE)
                finally:
                    os.close(descriptor)
                self._has_reserve = True
        except OSError:
            return  # without it a removal is refused on a full disk, as everything else is

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows it changed. Unavailable where the disk does not let us."""
        with self._lock:
            if sql.startswith("DELETE"):
                self._mind_reserve()
            return self._run(sql, parameters).rowcount

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row of a query."""
        with self._lock:
            return self._run(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        with self._lock:
            found: tuple[Any, ...] | None = self._run(sql, parameters).fetchone()
            return found

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.OperationalError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> KnarrError:
        return Unavailable(f"{self.path}: {error}; nothing was recorded: see that the disk has room and can be written")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, not waiting for the disk. Inside another one it joins that one."""
        with self._lock:
            if self._depth:
                yield
                return
            self._run("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have ended it by itself: the disk was full
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextlib.contextmanager
    def durable(self) -> Iterator[None]:
        """All or nothing, on the disk when the block has ended. May block: for threads. Not inside another."""
        with self._lock:
            if self._depth:
                raise RuntimeError("durable() inside another transaction would not be durable")
            with self.transaction():
                yield
        self._sync()

    def _sync(self) -> None:
        """Wait until the write-ahead log is on the disk, with the lock free for others.

        It is what synchronous=FULL does at the end of a commit (sqlite.org/pragma.html), there with the lock held.
        """
        descriptor = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database. Waits for the disk: for threads.

        On a connection of its own, so that nobody waits for it.
        """
        with contextlib.closing(sqlite3.connect(self.path, timeout=1, isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def wal_size(self) -> int:
        """Bytes that wait for a checkpoint."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Checkpoint and close."""
        with self._lock:
            self._connection.close()


def _statements(script: str) -> list[str]:
    """The statements of a script, split where SQLite says that one is complete."""
    found, pending = [], ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
