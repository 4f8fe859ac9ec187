"""How fast an older system's rows become files and waiting events, and how much memory that takes. No relay runs.

    python -m bench.backfill [rows]

Prints one JSON line: what the verb reports, the rate of its whole run and the most memory that its process held.
"""

import asyncio
import json
import os
import subprocess
import sys
from typing import Final

import asyncpg

from bench.servers import Servers, servers

ROWS: Final = 50_000

OLD_SYSTEM: Final = """
CREATE TABLE file_metadata AS
SELECT gen_random_uuid() AS file_id, 'se-01' AS storage_element_id,
       'Договор поставки № ' || number || '.pdf' AS original_filename,
       'dogovor_ivanov_20260113_' || md5(number::text) || '.pdf' AS storage_filename, number::bigint AS file_size,
       'application/pdf' AS mime_type, timestamptz '2026-01-13T10:00:00Z' + number * interval '1 second' AS created_at,
       'ivanov' AS created_by_username, 'Иван Иванов' AS created_by_fullname,
       'Договор с ООО «Ромашка», приложение ' || number AS description, '1.0' AS version,
       '["urgent", "contract"]'::jsonb AS tags, 'files/active' AS storage_path,
       'sha256:' || encode(sha256(number::text::bytea), 'hex') AS checksum,
       timestamptz '2027-01-13T10:00:00Z' AS retention_expires_at
FROM generate_series(1, {rows}) AS number;
ALTER TABLE file_metadata ADD PRIMARY KEY (file_id);
ANALYZE file_metadata;
"""


async def prepare(running: Servers, rows: int) -> tuple[str, str]:
    """URLs of an older system's database with `rows` rows and of an empty Admin database that can take them."""
    admin, old = await running.admin_database(), running.postgres.url("old")
    for url, statement in (
        (running.postgres.url("postgres"), "CREATE DATABASE old"),
        (old, OLD_SYSTEM.format(rows=rows)),
        (admin, "INSERT INTO storage_elements (element_id, url) VALUES ('se-01', 'memory:///')"),
    ):
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()
    return old, admin


def tell(line: str) -> None:
    """Say on standard error what is being done."""
    sys.stderr.write(f"{line}\n")


def main() -> None:
    """Run it once."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with servers(tell) as running:
        old, admin = asyncio.run(prepare(running, rows))
        verb = subprocess.Popen(
            [sys.executable, "-m", "producer_admin", "backfill", "--from", old, "--outbox-limit", "0", "--json"],
            env=os.environ | {"ADMIN_DATABASE_URL": admin},
            stdout=subprocess.PIPE,
        )
        assert verb.stdout is not None  # noqa: S101 - it is a pipe
        found = json.loads(verb.stdout.read())
        # The usage of this one child: Kafka's tools are children too.
        _, _, used = os.wait4(verb.pid, 0)
    report = {
        "rows": rows,
        "taken": found["taken"],
        "seconds": round(found["seconds"], 2),
        "rows_per_second": found["rows_per_second"],
        "processor_seconds": round(used.ru_utime, 2),
        "most_memory_mib": round(used.ru_maxrss / 1024),
    }
    sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main()
