"""Whether a fault passes, condemns a record, or is neither decides what becomes of the batch; nothing else does.

Only what Postgres says of the data itself can condemn a record. What is not known is treated like what passes: the
batch is tried again and the fault is told; a deployment fault must never empty the topic into dead letters.
"""

from enum import Enum
from typing import Final

import asyncpg
from aiokafka.errors import KafkaError

from runtime.postgres import AWAY


class Fault(Enum):
    """What a fault means for the batch that met it."""

    PASSING = "passing"
    """The same batch may succeed later."""
    BAD_RECORD = "bad record"
    """A record of the batch is to blame."""
    UNKNOWN = "unknown"
    """Neither is certain. Tried again, like a passing one, but on its own."""


# PostgreSQL, appendix A: the class is the first two characters of SQLSTATE.
_PASSING_CLASSES: Final = frozenset(
    {
        "08",  # connection exception
        "25",  # invalid transaction state: a standby is read-only until it is promoted
        "40",  # transaction rollback: serialization, deadlock
        "53",  # insufficient resources: disk full, out of memory, too many connections
        "55",  # object not in prerequisite state: lock not available
        "57",  # operator intervention: cancelled, shutting down, starting up
        "58",  # system error: I/O
    }
)
_DATA_CLASSES: Final = frozenset(
    {
        "22",  # data exception: untranslatable character, out of range, wrong text representation
        "54",  # program limit exceeded: tsvector or index row too long
    }
)


def fault_of(error: Exception) -> Fault:
    """What an error met while applying a batch means."""
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        if sqlstate[:2] in _DATA_CLASSES:
            return Fault.BAD_RECORD
        return Fault.PASSING if sqlstate[:2] in _PASSING_CLASSES else Fault.UNKNOWN
    if isinstance(error, (*AWAY, OSError, KafkaError)):
        return Fault.PASSING
    return Fault.UNKNOWN
