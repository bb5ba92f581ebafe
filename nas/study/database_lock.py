"""Lock in a PostgreSQL server, held by one process of all machines at a time."""

import hashlib

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from nas.locks import ExclusiveLock
from nas.study.storage_retries import call_with_backoff, place_of

_TAKE, _TRY = text("SELECT pg_advisory_lock(:key)"), text("SELECT pg_try_advisory_lock(:key)")
_IDLE_SECONDS = 300
_END_IF_IDLE = text(
    f"SELECT set_config(name, '{_IDLE_SECONDS}s', false) FROM pg_settings WHERE name = 'idle_session_timeout'"  # noqa: S608 - a number of ours
)
"""A process that was stopped while it holds the lock loses it then; PostgreSQL has this since version 14."""


class DatabaseLock(ExclusiveLock):
    """Advisory lock of a session of its own: the server releases it when the session ends, for whatever reason.

    Args:
        engine: of the storage.
        name: of the lock, unique in the database.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        self._session: Connection | None = None
        self._is_taken = False

    def take(self, *, wait: bool = True) -> bool:
        """Take the lock; wait for a server that is unavailable. See `ExclusiveLock`."""
        place = place_of(self._engine.url.render_as_string())
        self._session = call_with_backoff(lambda: self._locked_session(wait=wait), place)
        self._is_taken = self._session is not None
        return self._is_taken

    def _locked_session(self, *, wait: bool) -> Connection | None:
        """Return a session that holds the lock; None if another one holds it."""
        session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            session.execute(_END_IF_IDLE)
            if session.execute(_TAKE if wait else _TRY, {"key": self._key}).scalar() is not False:
                return session
        except BaseException:
            _end(session)
            raise
        _end(session)
        return None

    def is_lost(self) -> bool:
        """Return whether the lock was taken and its session has ended since."""
        if self._session is not None:
            try:
                self._session.execute(text("SELECT 1"))
            except SQLAlchemyError:
                _end(self._session)
                self._session = None
        return self._is_taken and self._session is None

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        session, self._session, self._is_taken = self._session, None, False
        if session is not None:
            _end(session)


def _end(session: Connection) -> None:
    """End a session, with its lock: the connection does not go back into the pool."""
    session.invalidate()
    session.close()
