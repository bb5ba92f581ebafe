"""Tables of ours in a storage that several machines share, beside Optuna's."""

from sqlalchemy import text

from nas.study.storage_retries import RetryingStorage

_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_KEY = 0x6E61735F7461626C  # "nas_tabl": two machines that create the tables at once would fail
_TABLES = (
    """\
CREATE TABLE IF NOT EXISTS nas_files (
    study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
    path VARCHAR(255) NOT NULL,
    machine VARCHAR(32) NOT NULL,
    size BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    written TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    content BYTEA NOT NULL,
    PRIMARY KEY (study_id, path))""",
    "ALTER TABLE nas_files ALTER COLUMN content SET STORAGE EXTERNAL",  # weights do not shrink by compression
    """\
CREATE TABLE IF NOT EXISTS nas_parts (
    study_id INTEGER NOT NULL,
    path VARCHAR(255) NOT NULL,
    number INTEGER NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    content BYTEA NOT NULL,
    PRIMARY KEY (study_id, path, number),
    FOREIGN KEY (study_id, path) REFERENCES nas_files (study_id, path) ON DELETE CASCADE)""",
    "ALTER TABLE nas_parts ALTER COLUMN content SET STORAGE EXTERNAL",
    """\
CREATE TABLE IF NOT EXISTS nas_machines (
    study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
    machine VARCHAR(32) NOT NULL,
    host VARCHAR(255) NOT NULL,
    process VARCHAR(255) NOT NULL,
    workers INTEGER NOT NULL,
    began TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    heartbeat TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    ended TIMESTAMPTZ,
    PRIMARY KEY (study_id, machine))""",
    """\
CREATE TABLE IF NOT EXISTS nas_claims (
    study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
    task VARCHAR(32) NOT NULL,
    machine VARCHAR(32) NOT NULL,
    PRIMARY KEY (study_id, task))""",
)
_ARE_THERE = text("SELECT to_regclass('nas_claims') IS NOT NULL AND to_regclass('nas_parts') IS NOT NULL")
"""Tables of the first version and of the last; databases of earlier ones have no parts of files."""


def create_tables(storage: RetryingStorage) -> None:
    """Create our tables unless the database has them; a study's rows go when Optuna's study is deleted."""
    if storage.rows(_ARE_THERE)[0][0]:
        return

    def create() -> None:
        with storage.engine.begin() as connection:
            connection.execute(_LOCK, {"key": _LOCK_KEY})
            for table in _TABLES:
                connection.execute(text(table))

    storage.call(create)
