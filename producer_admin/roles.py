"""The API, the relay and the repairs write rows and change no table; what was announced none of them can unsay.

    artstore_admin_migrate   owns all tables; the verb migrate
    artstore_admin_write     api, relay, backfill, republish, scrub, outbox

The partitions of the audit log are made and dropped by functions of their owner (migrations, 0007).
"""

from typing import Final

from runtime.roles import Access, Owner

STATEMENTS: Final = (
    "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {database} TO artstore_admin_migrate, artstore_admin_write",
    "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    "GRANT USAGE ON SCHEMA public TO artstore_admin_migrate, artstore_admin_write",
    "GRANT CREATE ON SCHEMA public TO artstore_admin_migrate",
    "ALTER DEFAULT PRIVILEGES FOR ROLE artstore_admin_migrate REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
)

_ALL: Final = "GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO artstore_admin_write"
_LOG: Final = "GRANT SELECT, INSERT ON {name} TO artstore_admin_write"
_CALL: Final = "GRANT EXECUTE ON FUNCTION {name} TO artstore_admin_write"

OF_MIGRATE: Final = {
    "alembic_version": "GRANT SELECT ON {name} TO artstore_admin_write",
    # A deleted file stays as a row: its id and revision are never used again.
    "files": "GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_admin_write",
    # An event is never changed; it leaves when it was sent.
    "outbox": "GRANT SELECT, INSERT, DELETE ON {name} TO artstore_admin_write",
    "outbox_sent": _LOG,
    "outbox_sent_default": "GRANT SELECT ON {name} TO artstore_admin_write",
    "outbox_sent_[0-9]{8}": "",
    "relay_shards": "GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_admin_write",
    "sagas": _ALL,
    "idempotency_keys": _ALL,
    "storage_elements": _ALL,
    "storage_usage": "GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_admin_write",
    "admin_actions": _LOG,
    "backfills": _ALL,
    "backfill_refusals": _LOG,
    "outbox_sent_add_day": _CALL,
    "outbox_sent_drop_day": _CALL,
    "outbox_sent_thin_default": _CALL,
}

ACCESS: Final = Access(
    roles={"migrate": "artstore_admin_migrate", "write": "artstore_admin_write"},
    owners=(Owner("artstore_admin_migrate", OF_MIGRATE),),
    statements=STATEMENTS,
)
