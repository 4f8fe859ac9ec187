"""Query is made equal to Admin through the topic alone: what is wrong is asked for anew, the cache is not written here.

    find what differs  →  what stays different  →  ask Admin to announce it anew  →  wait for it  →  what is left

An announcement has a greater revision than either side has seen, so it outranks what it mends; so does the deletion of
a file that only the cache knows. Such deletions are for good, and a great many of them mean that the Admin module has
lost files (was it restored from a backup?) rather than that the cache invented some: then nothing is deleted unless an
operator insists.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from consumer_query.admin_client import AdminClient, AdminSide
from consumer_query.confirm import Confirmer, Difference, LogEnds, Patience
from consumer_query.findings import MOST_LEFT, Findings
from consumer_query.reconcile import OurSide, find
from consumer_query.sides import CacheSide

MOST: Final = 10_000
"""Files looked at one by one in a run; when more are wrong, a rebuild is quicker."""
MOST_DELETIONS: Final = 100
SHARE_OF_DELETIONS: Final = 0.01
"""Of the cache's files. Files unknown to the Admin module, above both limits: they are not deleted by themselves."""
LARGEST_REVISION: Final = 2**62
"""The Admin module takes no greater one for seen."""
ACTOR: Final = "full sync"


@dataclass(frozen=True)
class Order:
    """What is to be done about differences."""

    dry_run: bool = False
    force: bool = False
    """Delete even a great many files that the Admin module does not know, and try again what was in vain."""
    in_vain: Mapping[UUID, int] | None = None
    """Files whose repair changed nothing the last time, at these Admin revisions: not tried again while they stand."""


@dataclass(frozen=True)
class Parties:
    """Whom a run has to do with."""

    cache: CacheSide
    admin: AdminSide
    client: AdminClient
    log_ends: LogEnds
    patience: Patience


@dataclass(frozen=True)
class Plan:
    """Which differences are repaired, and why not all."""

    announce: Collection[UUID]
    delete: Collection[UUID]
    """Unknown to the Admin module."""
    seen: Mapping[UUID, int]
    held_back: str | None


async def compare(ours: OurSide, admin: AdminSide, findings: Findings, most: int = MOST) -> set[UUID]:
    """Find the files that differ at the moment. Raises what the sides raise."""
    begun, asked = time.perf_counter(), admin.requests
    found = await find(ours, admin, most)
    findings.query_files, findings.admin_files = found.our_files, found.their_files
    findings.compared_in_seconds = round(time.perf_counter() - begun, 3)
    findings.requests = admin.requests - asked
    findings.candidates, findings.complete = len(found.file_ids), found.complete
    return found.file_ids


async def full_sync(parties: Parties, order: Order, findings: Findings, tell: Callable[[str], None]) -> None:
    """Compare the cache with the Admin module, and have repaired what is wrong.

    `findings` is up to date even when this ends by an error.

    Raises:
        AdminAwayError: the Admin module does not answer.
        CannotCompareError: the two databases make different digests.
        KafkaError, TimeoutError: the broker is away.
        PostgresError, OSError: our own database is.
    """
    tell("comparing")
    candidates = await compare(parties.cache, parties.admin, findings)
    confirmer = Confirmer(parties.cache, parties.admin, parties.log_ends, parties.patience, tell)
    confirmed = await confirmer.confirm(candidates)
    findings.note_found(confirmed.differences)
    findings.note_unconfirmed(confirmed.unconfirmed)
    if order.dry_run or not confirmed.differences:
        return
    plan = planned(confirmed.differences, order, findings.query_files)
    findings.held_back = plan.held_back
    tell(f"repairing {len(plan.announce) + len(plan.delete)} files")
    findings.asked += await parties.client.republish_all(plan.announce, plan.seen, ACTOR)
    findings.asked += await parties.client.republish_all(plan.delete, plan.seen, ACTOR, deletions=True)
    after = await confirmer.confirm(confirmed.differences)
    findings.note_left(after.differences)
    findings.note_unconfirmed(after.unconfirmed)
    tried = [one for one in after.differences if one in {*plan.announce, *plan.delete, *(order.in_vain or {})}]
    findings.in_vain = {one: after.differences[one].truth.revision or 0 for one in sorted(tried)[:MOST_LEFT]}


def planned(differences: Mapping[UUID, Difference], order: Order, files: int) -> Plan:
    """Decide what is repaired.

    Args:
        differences: that stayed
        order: of the run
        files: in the cache
    """
    reasons = []
    beyond = {one for one, found in differences.items() if found.ours and found.ours.revision > LARGEST_REVISION}
    if beyond:
        reasons.append(f"{len(beyond)} files stand at revisions that nothing can outrank: rebuild the cache")
    in_vain = order.in_vain or {}
    again = {
        one
        for one, found in differences.items()
        if not order.force and one in in_vain and in_vain[one] == (found.truth.revision or 0)
    }
    if again:
        reasons.append(f"{len(again)} were announced the last time and it did not help: see the dead letters")
    wanted = {one: found for one, found in differences.items() if one not in beyond | again}
    delete = {one for one, found in wanted.items() if found.truth.revision is None}
    if len(delete) > max(MOST_DELETIONS, files * SHARE_OF_DELETIONS) and not order.force:
        reasons.append(
            f"{len(delete)} files are unknown to the Admin module, which is too many to delete unasked: was it "
            "restored from a backup? Force deletes them"
        )
        delete_now: set[UUID] = set()
    else:
        delete_now = delete
    seen = {
        one: found.ours.revision
        for one, found in wanted.items()
        if found.ours is not None and found.ours.revision > (found.truth.revision or 0)
    }
    return Plan(wanted.keys() - delete, delete_now, seen, "; ".join(reasons) + "." if reasons else None)
