"""What the tests of AS USER share: a server with users of each role, and the audit log."""

from __future__ import annotations

import seracdb
from conftest import root

PASSWORD = "long enough"
DENIED = "Permission denied: AS USER requires service/admin role"
NOBODY = "Invalid user_id for AS USER operation"
SHARED = "AS USER not supported for Shared tables"
ROLES = ["user", "service", "admin"]


def fill(server) -> None:
    """Makes ann and bob, one user of each higher role, and tables of all kinds."""
    with root(server) as db:
        for user in ["ann", "bob"]:
            db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE user")
        for role in ["service", "admin"]:
            db.run(f"CREATE USER the_{role} WITH PASSWORD '{PASSWORD}' ROLE {role}")
        db.run("CREATE NAMESPACE app")
        db.run("CREATE USER TABLE app.notes (n BIGINT, text TEXT)")
        db.run("CREATE STREAM TABLE app.events (n BIGINT) WITH (ttl = '1h')")
        db.run("CREATE TABLE app.common (n BIGINT)")


def audit(db: seracdb.Connection, where: str = "subject_user_id IS NOT NULL") -> list[dict]:
    return db.query(f"SELECT * FROM system.audit_log WHERE {where} ORDER BY audit_id").to_pylist()


def shown(rows: list[dict]) -> list[tuple]:
    names = ["actor_user_id", "subject_user_id", "action", "target", "rows", "outcome"]
    return [tuple(row[name] for name in names) for row in rows]
