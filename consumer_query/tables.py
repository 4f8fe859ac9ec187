"""The shape of database `artstore_query`, all but the generations of the cache, which `generations` makes."""

from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData()
_MOMENT = DateTime(timezone=True)

CYRILLIC: Final = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
LATIN: Final = "abwgdeqziyklmnoprstufhc123456789"
"""In their order. Under LC_CTYPE C, which is usual beside the builtin locale, pg_trgm takes no other letters than those
of ASCII: words are compared in these. That some letters stand for two does no harm to candidates."""

CACHE_GENERATION = Table(
    "cache_generation",
    METADATA,
    Column("single", Boolean, CheckConstraint("single"), primary_key=True, server_default=text("true")),
    Column("live", Integer, nullable=False, comment="file_metadata_cache_g<live> stands behind the view."),
    Column(
        "shape",
        Integer,
        nullable=False,
        comment="Shape version of that table; a new shape is a new generation.",
    ),
    Column(
        "analyzer",
        Integer,
        nullable=False,
        comment="Version of the analysis that made its words; searches have to ask by the same.",
    ),
    Column("since", _MOMENT, nullable=False, server_default=text("now()")),
    comment="One row. Every batch locks it FOR SHARE, a swap FOR UPDATE.",
)

PROJECTOR_POSITIONS = Table(
    "projector_positions",
    METADATA,
    Column("generation", Integer, primary_key=True, autoincrement=False, comment="Whose rows it tells of."),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False, comment="All records below it are in the rows."),
    Column(
        "reached_offset",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="The greatest position ever: a replay sets the position back, and the rows are ahead of it then.",
    ),
    Column("moved_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column(
        "caught_up_at",
        _MOMENT,
        nullable=False,
        server_default=text("now()"),
        comment="When the log's end was last reached: deletions since then may have been compacted away.",
    ),
    Column("cluster_id", Text, comment="Of the broker that the offsets are of."),
    Column("witness_offset", BigInteger, comment="Of a record that was applied, to recognise the log by."),
    Column("witness", LargeBinary, comment="Digest of that record."),
    Column(
        "fresh_at",
        _MOMENT,
        comment="All that the log held at this moment is in the rows; null until it is known. See freshness_beat.",
    ),
    comment="Written in the transaction that writes the rows.",
)

GENERATIONS = Table(
    "generations",
    METADATA,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("shape", Integer, nullable=False),
    Column("analyzer", Integer, nullable=False),
    Column("made_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("retired_at", _MOMENT, comment="When it was live for the last time; kept for a rollback until it expires."),
    comment="Every table file_metadata_cache_g<N> that exists.",
)

REBUILD_JOBS = Table(
    "rebuild_jobs",
    METADATA,
    Column("job_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False, comment="rebuild, or rollback to the previous generation."),
    Column("phase", Text, nullable=False, comment="How far it has come; see rebuild_jobs.Phase."),
    Column("wish", Text, nullable=False, server_default=text("'run'"), comment="What the operator wants of it."),
    Column("force", Boolean, nullable=False, comment="Swap even if parity speaks against it."),
    Column("rows_per_second", Integer, comment="Throttle of loading; null is none."),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("started_at", _MOMENT),
    Column("phase_since", _MOMENT, nullable=False, server_default=text("now()")),
    Column("finished_at", _MOMENT),
    Column("generation", Integer, comment="The one that it fills or catches up."),
    Column("starts", Integer, nullable=False, server_default=text("0"), comment="How often a worker took it up."),
    Column("trouble", Text, comment="What stands in its way, or why it ended without a swap."),
    Column("parity", JSONB, comment="What the comparison with the live generation found."),
    Column("owner", Uuid, comment="Token of the worker that has it, another one at each claim."),
    Column("leased_until", _MOMENT, comment="By the database's clock; after it anyone may claim the job."),
)
Index(
    "rebuild_jobs_one_at_a_time",
    text("(true)"),
    unique=True,
    postgresql_where=REBUILD_JOBS.c.finished_at.is_(None),
    _table=REBUILD_JOBS,
)
# The list of the newest.
Index("rebuild_jobs_newest", REBUILD_JOBS.c.requested_at.desc())

REBUILD_PARTITIONS = Table(
    "rebuild_partitions",
    METADATA,
    Column("job_id", Uuid, ForeignKey("rebuild_jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("first_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False, comment="Loaded up to here."),
    Column("target_offset", BigInteger, nullable=False, comment="The log's end when it was begun."),
    Column("records", BigInteger, nullable=False, server_default=text("0"), comment="Read; offsets have gaps."),
    Column("rows", BigInteger, nullable=False, server_default=text("0"), comment="Written."),
    Column(
        "refused",
        ARRAY(LargeBinary),
        nullable=False,
        server_default=text("'{}'"),
        comment="Keys whose newest record is bad; an older one may stand for them.",
    ),
    Column(
        "begun_at", _MOMENT, nullable=False, server_default=text("now()"), comment="Bounded by delete.retention.ms."
    ),
    Column("loaded_at", _MOMENT),
)

CACHE_DOUBTS = Table(
    "cache_doubts",
    METADATA,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("reason", Text, primary_key=True, comment="See guards.Reason."),
    Column("detail", Text, nullable=False, comment="What was seen first, for people."),
    Column("since", _MOMENT, nullable=False, server_default=text("now()")),
    Column("rebuild", Uuid, comment="The job that was asked for because of it: no second one is, whatever its end."),
    comment="Why the rows of a generation may be wrong. Goes with it.",
)

SYNC_REPORTS = Table(
    "sync_reports",
    METADATA,
    Column("report_id", Uuid, primary_key=True),
    Column("side", Text, nullable=False, comment="What is compared with the Admin module: cache or topic."),
    Column("dry_run", Boolean, nullable=False, comment="Find, and repair nothing."),
    Column("force", Boolean, nullable=False, comment="Also publish deletions of many files that Admin never knew."),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("started_at", _MOMENT),
    Column("finished_at", _MOMENT),
    Column("starts", Integer, nullable=False, server_default=text("0"), comment="How often a worker took it up."),
    Column("stage", Text, nullable=False, server_default=text("'queued'"), comment="What is being done, for people."),
    Column("outcome", Text, comment="How it ended; see sync_reports.Outcome."),
    Column("trouble", Text, comment="Why it failed."),
    Column("findings", JSONB, comment="What was found and repaired; see sync_findings."),
    Column("owner", Uuid, comment="Token of the worker that has it, another one at each claim."),
    Column("leased_until", _MOMENT, comment="By the database's clock; after it anyone may claim it."),
)
Index(
    "sync_reports_one_at_a_time",
    text("(true)"),
    unique=True,
    postgresql_where=SYNC_REPORTS.c.finished_at.is_(None),
    _table=SYNC_REPORTS,
)
# The list of the newest; what is pruned is at its other end.
Index("sync_reports_newest", SYNC_REPORTS.c.requested_at.desc())

QUERY_LEXEMES = Table(
    "query_lexemes",
    METADATA,
    # By bytes: so the primary key serves prefixes too.
    Column("lexeme", Text(collation="C"), primary_key=True, comment="A word's stem, or a frequent value's term."),
    Column("files", Integer, nullable=False, comment="About how many files of the live generation have it."),
    comment="For estimates, corrections and completion; may be empty or old. No index on files: counts change often.",
)
# Candidates for a word with two slips. Numbers and terms are not corrected.
Index(
    "query_lexemes_alike",
    text(f"translate(lexeme, '{CYRILLIC}', '{LATIN}') gin_trgm_ops"),
    postgresql_using="gin",
    postgresql_where=text("lexeme !~ '[0-9:=]'"),
    _table=QUERY_LEXEMES,
)

QUERY_LEXEMES_COUNTED = Table(
    "query_lexemes_counted",
    METADATA,
    Column("single", Boolean, CheckConstraint("single"), primary_key=True, server_default=text("true")),
    Column("generation", Integer, nullable=False, comment="Whose lexemes they are; another one is counted soon."),
    Column("files", BigInteger, nullable=False, comment="Of how many files: what shares are of."),
    Column("changes", BigInteger, nullable=False, comment="Rows changed by then, as Postgres counts them."),
    Column("counted_at", _MOMENT, nullable=False),
    Column("seconds", Double, nullable=False, comment="What it took; the next does not begin too soon after."),
    comment="One row, or none: how old the counts are.",
)

SEARCH_SECRET = Table(
    "search_secret",
    METADATA,
    Column("single", Boolean, CheckConstraint("single"), primary_key=True, server_default=text("true")),
    Column("key", LargeBinary, CheckConstraint("length(key) = 32"), nullable=False),
    comment="Signs cursors. In the database, so that what one Query API gave any other takes, after restarts too.",
)
