"""An issuer with a key, and the tokens that it, or somebody who would like to be it, makes."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from hmac import digest
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from runtime.access_tokens import Rules

ISSUER: Final = "https://issuer.example/realms/artstore"
AUDIENCE: Final = "artstore"
RULES: Final = Rules(ISSUER, AUDIENCE, leeway=30)
ALL_SCOPES: Final = ("files:read", "files:write", "sync:admin")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


OURS, THEIRS = new_key(), new_key()
"""That of the issuer, and one that it knows nothing of."""


def pem(key: Any = OURS) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def jwk(kid: str | None, key: ec.EllipticCurvePrivateKey, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return found | ({} if kid is None else {"kid": kid}) | more


def jwks(**keys: ec.EllipticCurvePrivateKey) -> bytes:
    return json.dumps({"keys": [jwk(kid, key) for kid, key in keys.items()]}).encode()


def claims(now: float, *scopes: str, **changes: Any) -> dict[str, Any]:
    """What a good token claims, but for the changes; None leaves a claim out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ivanov",
        "scope": " ".join(scopes),
        "iat": int(now),
        "exp": int(now) + 300,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def mint(
    *scopes: str,
    key: Any = OURS,
    algorithm: str = "ES256",
    kid: str | None = "one",
    head: Mapping[str, Any] | None = None,
    now: float | None = None,
    **changes: Any,
) -> str:
    """A token of `ivanov` that is good now, but for what is said."""
    headers = {**({} if kid is None else {"kid": kid}), **(head or {})}
    body = claims(time.time() if now is None else now, *scopes, **changes)
    return jwt.encode(body, key, algorithm, headers=headers)


def forged_with_public_key(*scopes: str) -> str:
    """HS256 by what everybody knows: the public key as text, which a careless service takes for the secret."""

    def part(value: bytes) -> bytes:
        return urlsafe_b64encode(value).rstrip(b"=")

    signed = b".".join(
        part(json.dumps(one).encode())
        for one in ({"alg": "HS256", "typ": "JWT", "kid": "one"}, claims(time.time(), *scopes))
    )
    return (signed + b"." + part(digest(pem(), signed, sha256))).decode()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
