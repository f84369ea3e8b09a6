"""How the schema came to be, step by step. A step that was released is never changed: the next one mends it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, inspect, text

from turnout.deploy.store.failures import StoreTooNew

#: SQL that SQLite and PostgreSQL read alike. Step n brings the schema from version n - 1 to version n.
STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE turnout_state (
            id BIGINT PRIMARY KEY CHECK (id = 1),
            current BIGINT,
            revisions BIGINT NOT NULL,
            changes BIGINT NOT NULL,
            events BIGINT NOT NULL,
            position BIGINT NOT NULL)""",
        "INSERT INTO turnout_state VALUES (1, NULL, 0, 0, 0, 0)",
        """CREATE TABLE turnout_revisions (
            number BIGINT PRIMARY KEY,
            parent BIGINT REFERENCES turnout_revisions (number),
            document TEXT NOT NULL,
            digest TEXT NOT NULL,
            author TEXT NOT NULL,
            reason TEXT NOT NULL,
            diff TEXT NOT NULL,
            at DOUBLE PRECISION NOT NULL)""",
        """CREATE TABLE turnout_changes (
            seq BIGINT PRIMARY KEY,
            act TEXT NOT NULL,
            revision BIGINT NOT NULL REFERENCES turnout_revisions (number),
            before BIGINT,
            author TEXT NOT NULL,
            reason TEXT NOT NULL,
            diff TEXT NOT NULL,
            at DOUBLE PRECISION NOT NULL)""",
        """CREATE TABLE turnout_documents (
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            version BIGINT NOT NULL,
            at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (kind, key))""",
        """CREATE TABLE turnout_events (
            seq BIGINT PRIMARY KEY,
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            data TEXT NOT NULL,
            at DOUBLE PRECISION NOT NULL)""",
        """CREATE TABLE turnout_leases (
            name TEXT PRIMARY KEY,
            holder TEXT NOT NULL,
            token BIGINT NOT NULL,
            since DOUBLE PRECISION NOT NULL,
            seconds DOUBLE PRECISION NOT NULL)""",
    ),
)
#: Any number that no other program locks in the same database.
_ADVISORY = 0x7475726E6F7574


def version_of(connection: Connection) -> int:
    """The version of the schema that is there, 0 for none."""
    if not inspect(connection).has_table("turnout_schema"):
        return 0
    return int(connection.execute(text("SELECT version FROM turnout_schema")).scalar_one())


def migrate(connection: Connection, steps: Sequence[Sequence[str]] = STEPS) -> None:
    """Brings the schema up to date, inside the transaction that the caller has begun for writing.

    Two that start at once do it one after the other, and the second finds nothing to do. Raises StoreTooNew.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY})
    version = version_of(connection)
    refuse_newer(version, len(steps))
    if version == 0:
        connection.execute(text("CREATE TABLE turnout_schema (version BIGINT NOT NULL)"))
        connection.execute(text("INSERT INTO turnout_schema VALUES (0)"))
    for step in steps[version:]:
        for statement in step:
            connection.execute(text(statement))
    if version < len(steps):
        connection.execute(text("UPDATE turnout_schema SET version = :version"), {"version": len(steps)})


def refuse_newer(version: int, known: int = len(STEPS)) -> None:
    """Raises StoreTooNew for a schema that this Turnout does not know."""
    if version > known:
        msg = (
            f"the store has schema version {version}, and this Turnout knows {known} at most: a newer Turnout has "
            "written it. Start that one, or give this one a store of its own"
        )
        raise StoreTooNew(msg)
