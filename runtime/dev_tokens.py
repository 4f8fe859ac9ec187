"""Tokens for development, by a key that lies in a folder: whoever can read it can be anybody. No service loads this."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key

KEY: Final = "key.pem"
PUBLIC: Final = "public.pem"
SCOPES: Final = ("files:read", "files:write", "sync:admin")
"""All, as in `auth.Scope`, which brings a web framework along."""


def make_key(folder: Path) -> bool:
    """Make a key (P-256) for tokens in a folder, readable to its owner alone, and AUTH_KEY_FILE beside it.

    Returns:
        False when there was a key, which stays.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / KEY
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / PUBLIC).write_bytes(public)
    return True


def mint(
    key: bytes, issuer: str, audience: str, subject: str, scopes: Sequence[str], now: float, lifetime: float
) -> str:
    """A token.

    Args:
        key: P-256, PEM
        issuer: as AUTH_ISSUER says
        audience: as AUTH_AUDIENCE says
        subject: whom it speaks for
        scopes: what it lets them do
        now: seconds since 1970
        lifetime: seconds

    Raises:
        ValueError: the key is of another kind, or cannot be read.
    """
    private = load_key(key, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError("not a P-256 key")  # noqa: TRY004 - of a file, not of an argument
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": int(now),
        "exp": int(now + lifetime),
        "jti": uuid4().hex,
    }
    return jwt.encode(claims, private, "ES256", headers={"typ": "at+jwt"})
