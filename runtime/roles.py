"""Who may do what in a database is said once, as SQL, and holds whichever came first: roles, tables or a generation.

A role is a group that cannot log in; users that can are its members. What a role owns and what others may do with it is
listed in `Owner.grants`; nothing else is granted, and what was granted otherwise is taken back. Whoever makes a table
becomes the role that is to own it (BECOME), and the verb `migrate` grants anew what it has made.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from runtime.errors import StartError
from runtime.postgres import Connection, connect

TRIES: Final = 5
"""While what runs holds the tables: each waits LOCK_TIMEOUT."""
LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '2s'"
ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(7291008)"
"""Grants of two at once on one table would fail; any number will do."""

# Only where the roles were made for this database: they are there for all databases of a server.
BECOME: Final = """
SELECT set_config('role', rolname, true) FROM pg_roles
WHERE rolname = $1 AND pg_has_role(session_user, oid, 'SET') AND oid IN (
    SELECT grantee FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'public' AND privilege_type = 'CREATE'
)
"""
"""Until the transaction ends; $1: a role that owns."""
BECOME_FOR_GOOD: Final = BECOME.replace("true", "false")

HERE: Final = """
SELECT current_database() AS database, current_user AS me, rolsuper AS super FROM pg_roles WHERE rolname = current_user
"""
ROLES: Final = "SELECT rolname, rolsuper FROM pg_roles"
OBJECTS: Final = """
SELECT 'TABLE' AS kind, relname AS name, quote_ident(relname) AS quoted, pg_get_userbyid(relowner) AS owner
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
UNION ALL SELECT 'FUNCTION', proname, oid::regprocedure::text, pg_get_userbyid(proowner)
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'TYPE', typname, quote_ident(typname), pg_get_userbyid(typowner)
FROM pg_type LEFT JOIN pg_class ON pg_class.oid = typrelid
WHERE typnamespace = 'public'::regnamespace AND (typtype = 'd' OR relkind = 'c')
ORDER BY 1 DESC, 2
"""

_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ITERATIONS: Final = 4096


class RolesError(StartError):
    """The roles cannot be made, or a user that was asked for cannot."""


@dataclass(frozen=True)
class Owner:
    """A role that owns, and what others may do with what it owns."""

    role: str
    grants: Mapping[str, str]
    """By the name of a table, view, function or type, a pattern: the GRANT, with {name} in it. Empty: nobody else."""


@dataclass(frozen=True)
class Access:
    """Who may do what in one database."""

    roles: Mapping[str, str]
    """By the word that follows --login: the role."""
    owners: Sequence[Owner]
    statements: Sequence[str]
    """Of the database and its schema, with {database} in them; each may be run again."""


@dataclass(frozen=True)
class Login:
    """A user that can log in, as a member of a role."""

    user: str
    role: str
    password: str | None
    """None: it keeps the one that it has, or logs in by a certificate."""


@dataclass(frozen=True)
class _Object:
    kind: str
    name: str
    quoted: str
    owner: str


def logins(access: Access, asked: Iterable[str], folder: Path | None, environment: Mapping[str, str]) -> list[Login]:
    """The users that --login ROLE=USER asks for.

    Args:
        access: whose roles they may have
        asked: the options
        folder: its file named like the user holds the password
        environment: else the variable USER_PASSWORD, in upper case, does

    Raises:
        RolesError: one of them is not of that form, or its password cannot be used.
    """
    return [_login(access, one, folder, environment) for one in asked]


def _login(access: Access, asked: str, folder: Path | None, environment: Mapping[str, str]) -> Login:
    word, _, user = asked.partition("=")
    if word not in access.roles or _USER.fullmatch(user) is None or user in access.roles.values():
        raise RolesError(f"--login takes ROLE=USER, with a role of {', '.join(access.roles)}; not {asked!r}.")
    password = environment.get(f"{user.upper().replace('-', '_')}_PASSWORD")
    if folder is not None and (folder / user).is_file():
        password = (folder / user).read_text().rstrip("\n")
    if password is not None and (not password or not password.isascii() or not password.isprintable()):
        raise RolesError(f"The password of {user} is empty, or has characters other than those of ASCII that print.")
    return Login(user, access.roles[word], password)


async def run_roles(
    url: str, access: Access, asked: Iterable[str], passwords: Path | None, say: Callable[[str], None], *, dry_run: bool
) -> None:
    """Make the roles of a database and grant what they need, all of it or nothing; safe to run again.

    Args:
        url: of the database, as a superuser, or as its owner with CREATEROLE
        access: what there is to be
        asked: users to be made as well, see `logins`
        passwords: see `logins`
        say: told each statement
        dry_run: tell, and do nothing

    Raises:
        UrlError, UnreachableError: see `postgres.connect`.
        RolesError: the database refuses, or is too busy.
    """
    users = logins(access, asked, passwords, os.environ)
    connection = await connect(url, "roles")
    try:
        for left in reversed(range(TRIES)):
            try:
                async with connection.transaction():
                    await connection.execute(LOCK_TIMEOUT)
                    await connection.execute(ONE_AT_A_TIME)
                    for statement, secret in await _plan(connection, access, users):
                        say(statement.replace(secret, "…") if secret else statement)
                        if not dry_run:
                            await connection.execute(statement)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                if not left:
                    raise
                say("-- a table is in use: all of it once more")
            else:
                return
    except asyncpg.PostgresError as error:
        raise RolesError(f"Nothing was changed, the database refuses: {error}") from error
    finally:
        await connection.close()


async def grant_anew(connection: Connection, access: Access) -> None:
    """Grant what others need of what the owners own, as far as this session may become them."""
    for owner in access.owners:
        async with connection.transaction():
            if await connection.fetchval(BECOME, owner.role) is None:
                continue
            await connection.execute(ONE_AT_A_TIME)
            for one, whose, grant in await _listed(connection, access):
                if one.owner == whose.role == owner.role:
                    for statement in _grants(access, one, whose, grant):
                        await connection.execute(statement)


async def _plan(connection: Connection, access: Access, users: Sequence[Login]) -> list[tuple[str, str]]:
    """What is to be done, each with what must not be told of it."""
    here = await connection.fetchrow(HERE)
    assert here is not None  # noqa: S101 - whoever is connected is in pg_roles
    known = {row["rolname"]: row["rolsuper"] for row in await connection.fetch(ROLES)}
    listed = await _listed(connection, access)
    plan = [f"CREATE ROLE {role} NOLOGIN" for role in access.roles.values() if role not in known]
    owning = ", ".join(owner.role for owner in access.owners)
    if not here["super"]:
        plan.append(f"GRANT {owning} TO CURRENT_USER")  # to give them what is ours, and grant for them
    plan += [_in_a_line(one).format(database=_quoted(here["database"])) for one in access.statements]
    moved = [(one, owner) for one, owner, _ in listed if one.owner != owner.role]
    # What runs as a former owner goes on until it is given a user of its own.
    everything = ", ".join(access.roles.values())
    former = sorted({one.owner for one, _ in moved} - {here["me"]})
    plan += [f"GRANT {everything} TO {_quoted(one)}" for one in former if not known[one]]
    plan += [f"ALTER {one.kind} {one.quoted} OWNER TO {owner.role}" for one, owner in moved]
    plan += [statement for one, owner, grant in listed for statement in _grants(access, one, owner, grant)]
    return [(one, "") for one in plan] + [step for user in users for step in _steps(user, known)]


def _grants(access: Access, one: _Object, owner: Owner, grant: str) -> Iterator[str]:
    others = ", ".join(role for role in access.roles.values() if role != owner.role)
    yield f"REVOKE ALL ON {one.kind} {one.quoted} FROM PUBLIC, {others}"
    yield from filter(None, map(_in_a_line, grant.format(name=one.quoted).split(";")))


def _steps(login: Login, known: Mapping[str, bool]) -> Iterator[tuple[str, str]]:
    verifier = "" if login.password is None else scram(login.password)
    password = f" PASSWORD '{verifier}'" if verifier else ""
    if login.user not in known:
        yield f"CREATE ROLE {_quoted(login.user)} LOGIN{password}", verifier
    elif known[login.user]:
        raise RolesError(f"{login.user} is a superuser: no role takes anything from it.")
    elif password:
        yield f"ALTER ROLE {_quoted(login.user)} LOGIN{password}", verifier
    yield f"GRANT {login.role} TO {_quoted(login.user)}", ""


async def _listed(connection: Connection, access: Access) -> list[tuple[_Object, Owner, str]]:
    """What there is of what should be somebody's: whose, and what is granted on it."""
    return [
        (_Object(**row), owner, grant)
        for row in await connection.fetch(OBJECTS)
        for owner in access.owners
        for pattern, grant in owner.grants.items()
        if re.fullmatch(pattern, row["name"])
    ]


def scram(password: str) -> str:
    """What Postgres keeps of a password (RFC 5803), so that it comes into no log of the server: ASCII only."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    parts = [base64.b64encode(one).decode() for one in (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))]
    return f"SCRAM-SHA-256${_ITERATIONS}:{parts[0]}${parts[1]}:{parts[2]}"


def _in_a_line(statement: str) -> str:
    return " ".join(statement.split())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
