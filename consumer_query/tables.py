"""The shape of database `artstore_query`, all but the generations of the cache, which `generations` makes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

METADATA = MetaData()
_MOMENT = DateTime(timezone=True)

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
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False, comment="All records below it are in the rows."),
    Column("moved_at", _MOMENT, nullable=False, server_default=text("now()")),
    comment="Written in the transaction that writes the rows.",
)
