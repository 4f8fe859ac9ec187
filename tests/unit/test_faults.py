"""What an error means for the batch: only what Postgres says of the data condemns a record."""

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError, UnknownTopicOrPartitionError

from consumer_query.faults import Fault, fault_of
from schemas.registry import RegistryError

exceptions = asyncpg.exceptions


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        OSError(),
        KafkaConnectionError(),
        UnknownTopicOrPartitionError(),
        asyncpg.InterfaceError("connection is closed"),
        # Seen when Postgres is killed between two statements of a connection.
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        exceptions.ConnectionDoesNotExistError(),
        exceptions.DeadlockDetectedError(),
        exceptions.SerializationError(),
        exceptions.AdminShutdownError(),
        exceptions.CannotConnectNowError(),
        exceptions.DiskFullError(),
        exceptions.OutOfMemoryError(),
        exceptions.TooManyConnectionsError(),
        exceptions.LockNotAvailableError(),
        exceptions.QueryCanceledError(),
        exceptions.ReadOnlySQLTransactionError(),
        exceptions.PostgresIOError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_never_condemns_a_record(error: Exception) -> None:
    assert fault_of(error) is Fault.PASSING


@pytest.mark.parametrize(
    "error",
    [
        exceptions.UntranslatableCharacterError(),
        exceptions.CharacterNotInRepertoireError(),
        exceptions.DatetimeFieldOverflowError(),
        exceptions.NumericValueOutOfRangeError(),
        exceptions.InvalidTextRepresentationError(),
        exceptions.ProgramLimitExceededError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_postgres_says_of_the_data_does(error: Exception) -> None:
    assert fault_of(error) is Fault.BAD_RECORD


@pytest.mark.parametrize(
    "error",
    [
        exceptions.UndefinedTableError(),
        exceptions.InsufficientPrivilegeError(),
        exceptions.CheckViolationError(),
        exceptions.UniqueViolationError(),
        exceptions.InternalServerError(),
        RegistryError(),
        ZeroDivisionError(),
        TypeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_all_else_is_nobodys_fault_until_someone_looks(error: Exception) -> None:
    assert fault_of(error) is Fault.UNKNOWN
