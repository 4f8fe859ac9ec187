"""The audit log's partitions are made and dropped by functions of its owner: the relay's role need not own it."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Days are by UTC. The bounds are for whoever may call them: neither many tables nor a fresh log can be lost by that.
STATEMENTS = (
    """
    CREATE FUNCTION outbox_sent_add_day(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        name text := 'outbox_sent_' || to_char(day, 'YYYYMMDD');
        today date := (now() AT TIME ZONE 'UTC')::date;
    BEGIN
        IF day NOT BETWEEN today - 1 AND today + 31 THEN
            RAISE EXCEPTION 'the audit log gets no partition for %', day;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE outbox_sent INCLUDING CONSTRAINTS)', name);
        EXECUTE format(
            'ALTER TABLE outbox_sent ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
        );
    END $$
    """,
    """
    CREATE FUNCTION outbox_sent_drop_day(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF day >= (now() AT TIME ZONE 'UTC')::date - 1 THEN
            RAISE EXCEPTION 'the audit log of % is too young to be dropped', day;
        END IF;
        EXECUTE format('DROP TABLE %I', 'outbox_sent_' || to_char(day, 'YYYYMMDD'));
    END $$
    """,
    """
    CREATE FUNCTION outbox_sent_thin_default(before timestamptz, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        gone bigint;
    BEGIN
        IF before > now() - interval '1 day' THEN
            RAISE EXCEPTION 'the audit log before % is too young to be deleted', before;
        END IF;
        DELETE FROM outbox_sent_default
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM outbox_sent_default WHERE sent_at < before LIMIT most));
        GET DIAGNOSTICS gone = ROW_COUNT;
        RETURN gone;
    END $$
    """,
    """
    REVOKE ALL ON FUNCTION
        outbox_sent_add_day(date), outbox_sent_drop_day(date), outbox_sent_thin_default(timestamptz, integer)
    FROM PUBLIC
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION outbox_sent_add_day, outbox_sent_drop_day, outbox_sent_thin_default")
