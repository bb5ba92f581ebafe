"""Connections to a PostgreSQL server that notice, within seconds, that the other end is gone.

Without these settings a cut link is noticed after two hours: by the client, which waits for an answer, and by the
server, which keeps the locks of the machine that was cut off.
"""

import os
from pathlib import Path
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from sqlalchemy import event, make_url

from nas import addresses
from nas.private_files import require_private

_OF_CLIENT: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Parameters of libpq, in seconds; the last one in milliseconds."""
_OF_SERVER: dict[str, str] = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "idle_in_transaction_session_timeout": "60000",
}
"""The same for the server's end of a session; a process that was stopped within a transaction holds no rows longer."""
_SET = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"
"""A server of an older version lacks some of them."""
_IDLE_CONNECTIONS = 1


Storage = TypeVar("Storage", bound=RDBStorage)


def server_options(url: str) -> dict[str, Any]:
    """Return SQLAlchemy's options for the connections to a server; what the address sets itself has precedence."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    if addresses.is_postgresql(url):
        query = make_url(url).query
        options |= {
            "pool_size": _IDLE_CONNECTIONS,  # a server carries as many processes as it has connections
            "max_overflow": 10,
            "connect_args": {name: value for name, value in _OF_CLIENT.items() if name not in query},
        }
    return options


def require_private_password_file(url: str) -> None:
    """Refuse a file of passwords that others may read; libpq would ignore it, and the server ask for a password.

    Args:
        url: of the storage; nothing is read unless it is PostgreSQL.

    Raises:
        EnvironmentProblem: its mode is another than 600.
    """
    path = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
    if not addresses.is_postgresql(url) or not path.is_file():
        return
    require_private(path, "it is not read then", "storage: ")


def with_server_timeouts(storage: Storage) -> Storage:
    """Return a storage whose every new connection to PostgreSQL sets the timeouts of the server's end."""
    if storage.engine.dialect.name == "postgresql":
        event.listen(storage.engine, "connect", _set_timeouts)
        storage.scoped_session.remove()  # the connection that was opened before
        storage.engine.dispose()
    return storage


def _set_timeouts(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for name, value in _OF_SERVER.items():
        cursor.execute(_SET, (value, name))
    cursor.close()
    connection.commit()
