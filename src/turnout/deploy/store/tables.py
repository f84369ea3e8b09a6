"""The tables as the queries see them; `migrations.py` makes them. A test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, MetaData, Table, Text

METADATA = MetaData()

#: One row that every change locks first: changes happen one after the other, and what they count has no holes.
STATE = Table(
    "turnout_state",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("current", BigInteger),
    Column("revisions", BigInteger, nullable=False),
    Column("changes", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
)
REVISIONS = Table(
    "turnout_revisions",
    METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("parent", BigInteger),
    Column("document", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("diff", Text, nullable=False),
    Column("at", Double, nullable=False),
)
CHANGES = Table(
    "turnout_changes",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("act", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("before", BigInteger),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("diff", Text, nullable=False),
    Column("at", Double, nullable=False),
)
DOCUMENTS = Table(
    "turnout_documents",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)
EVENTS = Table(
    "turnout_events",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("at", Double, nullable=False),
)
LEASES = Table(
    "turnout_leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("since", Double, nullable=False),
    Column("seconds", Double, nullable=False),
)
