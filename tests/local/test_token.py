"""`artstore token`: a key is made once, and what is printed is a token that the guard takes, and nothing else."""

import stat
import sys
import time
from pathlib import Path

from runtime.access_tokens import Rules, judge, read_head, read_keys, verify
from runtime.dev_tokens import make_key
from tests.running import run_verb

TOKEN = (sys.executable, "-P", "-m", "cli", "token")


async def test_a_key_is_made_once_readable_to_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "auth"
    code, told, said = await run_verb((*TOKEN, "--make-key", str(folder)))
    assert (code, told, said) == (0, "", f"Made a key in {folder}.\n")
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {"key.pem", "public.pem"}
    assert not make_key(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


async def test_a_token_of_a_key_says_what_was_asked_for(tmp_path: Path) -> None:
    make_key(tmp_path)
    wanted = ("--issuer", "urn:dev", "--audience", "us", "--scope", "files:read", "--scope", "files:write")
    key = ("--key", str(tmp_path / "key.pem"))
    code, told, said = await run_verb((*TOKEN, *key, *wanted, "--subject", "olga", "--lifetime", "15m"))
    assert (code, said, told.count("\n")) == (0, "", 1)
    token = told.strip()
    claims = verify(token, read_head(token), read_keys((tmp_path / "public.pem").read_bytes()))
    caller = judge(claims, Rules("urn:dev", "us", 0), time.time())
    assert caller == ("olga", frozenset({"files:read", "files:write"}))
    assert claims["exp"] - claims["iat"] == 15 * 60


async def test_what_makes_no_token_is_said_in_a_sentence(tmp_path: Path) -> None:
    make_key(tmp_path)
    here = {"ARTSTORE_HOME": str(tmp_path / "none")}
    code, told, said = await run_verb(TOKEN, **here)
    assert (code, told, "./artstore up" in said) == (1, "", True)
    code, told, said = await run_verb((*TOKEN, "--key", str(tmp_path / "key.pem")), **here)
    assert (code, told, "--issuer and --audience" in said) == (2, "", True)
    public = ("--key", str(tmp_path / "public.pem"), "--issuer", "a", "--audience", "b")
    code, told, said = await run_verb((*TOKEN, *public), **here)
    assert (code, told, said.startswith("The key cannot be used: ")) == (1, "", True)
