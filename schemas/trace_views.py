"""What the Admin module tells the Query module of one file's way to the topic, as JSON.

Fields are added, never renamed: either side may be the newer one.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Relaying = Literal["sending", "held", "nobody"]


class SagaTrace(BaseModel):
    """A saga of the file that has not ended, or the last one."""

    model_config = ConfigDict(from_attributes=True)

    saga_id: UUID
    kind: str
    state: str
    step: str = Field(description="The last step that was begun.")
    error: str | None
    attempts: int = Field(description="How often it was taken up again.")
    revision: int | None = Field(description="Of the file, once the change is recorded.")
    seconds: float = Field(description="Since that was noted.")
    attended: bool = Field(description="Some process works on it now.")


class WaitingTrace(BaseModel):
    """An event of the file in the outbox."""

    model_config = ConfigDict(from_attributes=True)

    revision: int
    event_type: str
    occurred_at: datetime
    seconds: float = Field(description="That it has waited.")


class SentTrace(BaseModel):
    """The newest event of the file that the audit log knows."""

    model_config = ConfigDict(from_attributes=True)

    revision: int
    event_type: str
    sent_at: datetime
    offset: int | None = Field(description="On the file's partition; null when the broker could not say.")


class AdminTrace(BaseModel):
    """The truth about a file, and how far its changes have come on the Admin side, all as of one moment."""

    file_id: UUID
    partition: int = Field(description="Of the topic: shard of the outbox, too.")
    revision: int | None = Field(description="null when no such file was ever recorded.")
    deleted: bool
    sagas: list[SagaTrace] = Field(description="That have not ended, and the last one, the newest first.")
    waiting: list[WaitingTrace] = Field(description="The newest last.")
    ahead: int = Field(description="Events on the shard that are sent before the first of these.")
    relay: Relaying = Field(
        description="Who sends the file's shard: a relay; nobody yet, because publishing is held; nobody."
    )
    sent: SentTrace | None = Field(description="null when none was sent, or so long ago that nobody remembers.")
