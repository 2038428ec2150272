"""Tables of tasks, runs, events, payloads and presence; states are the contract's numbers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from vantage.server.storage.schema import Instant, metadata

task = Table(
    "task",
    metadata,
    Column("name", String(42), primary_key=True),
    Column("collaboration", String(80), nullable=False),
    Column("study", String(160), nullable=False, default="", server_default=""),
    Column("title", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("timeout", BigInteger, nullable=False),
    Column("signed_order", LargeBinary, nullable=False),
    Column("parent_orders", LargeBinary, nullable=True),
    Column("parent_run", String(84), nullable=False),
    Column("depth", Integer, nullable=False),
    Column("creator", String(160), nullable=False),
    Column("creator_organization", String(80), nullable=False),
    Column("owner", String(160), nullable=False),
    Column("owner_organization", String(80), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("state", Integer, nullable=False),
    Column("closing", Integer, nullable=True),
    Column("created", Instant, nullable=False),
    Column("deadline", Instant, nullable=False),
    Column("finished", Instant, nullable=True),
    Column("last_sequence", BigInteger, nullable=False),
    Column("open_runs", Integer, nullable=False),
    Column("succeeded_runs", Integer, nullable=False),
    Column("unsuccessful_runs", Integer, nullable=False),
    Column("quorum", Integer, nullable=False, server_default="0"),
    Column("on_failure", Integer, nullable=False, server_default="1"),
    Column("max_runtime", BigInteger, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False, server_default="3"),
    Column("detached", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("creator", "request_id"),
)
Index(
    "ix_task_parent_run",
    task.c.parent_run,
    sqlite_where=text("parent_run <> ''"),
    postgresql_where=text("parent_run <> ''"),
)
Index("ix_task_active", task.c.deadline, sqlite_where=text("state = 1"), postgresql_where=text("state = 1"))
"""``closing`` is the final state that was chosen before all runs had ended; the three counts save reading the runs."""

run = Table(
    "run",
    metadata,
    Column("name", String(84), primary_key=True),
    Column("task", ForeignKey("task.name", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("organization", String(80), nullable=False),
    Column("collaboration", String(80), nullable=False),
    Column("wanted_node", String(160), nullable=False),
    Column("datasets", Text, nullable=False),
    Column("node", String(160), nullable=False),
    Column("state", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lease_id", String(36), nullable=False),
    Column("subtasks", Integer, nullable=False),
    Column("failure_reason", String(80), nullable=True),
    Column("failure_message", Text, nullable=True),
    Column("failure_metadata", Text, nullable=True),
    Column("assign_time", Instant, nullable=True),
    Column("start_time", Instant, nullable=True),
    Column("finish_time", Instant, nullable=True),
    Column("statement", LargeBinary, nullable=True),
    Column("max_attempts", Integer, nullable=False, server_default="3"),
    Column("retry_time", Instant, nullable=True),
    Column("owner", String(160), nullable=False, server_default=""),
    UniqueConstraint("task", "position"),
)
"""``retry_time``: the run waits in the queue and is handed to nobody until a timer takes this away; the moment itself
is for people, and for the next process."""
Index(
    "ix_run_queued",
    run.c.organization,
    run.c.name,
    sqlite_where=text("state = 1"),
    postgresql_where=text("state = 1"),
)
Index(
    "ix_run_waiting",
    run.c.organization,
    run.c.owner,
    run.c.name,
    sqlite_where=text("state = 1"),
    postgresql_where=text("state = 1"),
)
Index("ix_run_leased", run.c.node, sqlite_where=text("state IN (2, 3)"), postgresql_where=text("state IN (2, 3)"))

content = Table(
    "content",
    metadata,
    Column("run", ForeignKey("run.name", ondelete="CASCADE"), primary_key=True),
    Column("kind", Integer, primary_key=True),
    Column("media_type", String(200), nullable=False),
    Column("sealing", Integer, nullable=False),
    Column("inline", LargeBinary, nullable=True),
    Column("reference", String(45), nullable=True),
    Column("size", BigInteger, nullable=False),
    Column("digest", String(71), nullable=False),
)
"""Arguments (kind 1) and results (kind 2), each stored once, and apart: a run's row is rewritten often."""
Index(
    "ix_content_reference",
    content.c.reference,
    sqlite_where=text("reference IS NOT NULL"),
    postgresql_where=text("reference IS NOT NULL"),
)
ARGUMENTS = 1
RESULT = 2

event = Table(
    "event",
    metadata,
    Column("task", ForeignKey("task.name", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("time", Instant, nullable=False),
    Column("run", String(84), nullable=False),
    Column("state", Integer, nullable=False),
    Column("node", String(160), nullable=False),
    Column("attempt", Integer, nullable=False),
)
"""From sequence 2 without gaps; 1 is the creation: the task's own row. Without a run it is the task that ended."""

payload = Table(
    "payload",
    metadata,
    Column("name", String(45), primary_key=True),
    Column("uploader", String(160), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("created", Instant, nullable=False),
    Column("organization", String(80), nullable=False, server_default=""),
    Column("removing", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("uploader", "request_id"),
)
"""``created`` is when the upload was last taken up, until it is complete. ``removing``: its bytes are about to go."""
Index("ix_payload_organization", payload.c.organization)

presence = Table(
    "presence",
    metadata,
    Column("node", String(160), primary_key=True),
    Column("last_seen", Instant, nullable=False),
    Column("version", Text, nullable=False),
    Column("datasets", Text, nullable=False),
    Column("catalogue", Text, nullable=False, server_default=""),
)
"""What a node said of itself when it last connected."""
