"""A token is believed for a signature by one of the issuer's keys, and for what it then says: by whom, for whom, when.

Values in, a caller or a refusal out (RFC 6750, 7519 and 8725; of RFC 9068 what issuers keep to). The algorithm is the
key's to allow, never the token's to choose: none, and HMAC by a key that everybody knows, are not on the list at all.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import InvalidSignatureError, PyJWK, PyJWS, PyJWTError

from runtime.errors import ServiceError

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
ALGORITHMS: Final = _RSA | {"ES256", "ES384", "EdDSA"}
SMALLEST_RSA_BITS: Final = 2048
MOST_CHARACTERS: Final = 16_384
"""Of a token."""
LAST_MOMENT: Final = 1e12
"""Seconds since 1970; later than any."""
LONGEST_SUBJECT: Final = 100
"""Characters: as long as the name of an actor may be."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What issuers call an access token; what is called another thing, such as a logout token, is none."""
REALM: Final = 'Bearer realm="artstore"'

_JWS: Final = PyJWS(sorted(ALGORITHMS))

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class TokenRefusedError(ServiceError):
    """There is a token, and it is not to be believed. The reason holds nothing of what the token says."""

    status: ClassVar[int] = 401
    title: ClassVar[str] = "Token refused"

    def __init__(self, why: str) -> None:
        challenge = f'{REALM}, error="invalid_token", error_description="{why}"'
        super().__init__(why, headers={"WWW-Authenticate": challenge})


class Key(NamedTuple):
    """One key of the issuer."""

    kid: str | None
    """Its name; None where it has none, and then it may be meant by any token."""
    public: PublicKey
    algorithms: frozenset[str]
    """That it may have signed by."""


class Head(NamedTuple):
    """What a token says of its own signature. Not yet believed."""

    algorithm: str
    kid: str | None


@dataclass(frozen=True)
class Rules:
    """What a token must be to be meant for us."""

    issuer: str
    audience: str
    leeway: float
    """Seconds that the issuer's clock and ours may differ by."""


class Caller(NamedTuple):
    """Who a token speaks for, and what it lets them do."""

    subject: str
    scopes: frozenset[str]


def read_keys(text: bytes) -> tuple[Key, ...]:
    """The keys of a JWKS (RFC 7517), or that of a PEM public key or certificate, of which the dates are not looked at.

    Keys of a JWKS that cannot sign tokens here are left out: for encryption, private, too short, of another kind.

    Raises:
        ValueError: it is none of these.
    """
    if text.lstrip().startswith(b"{"):
        listed = json.loads(text).get("keys")
        if not isinstance(listed, list):
            raise ValueError("no JWKS: it has no list of keys")
        return tuple(key for one in listed if isinstance(one, dict) and (key := _of_jwk(one)) is not None)
    if b"PRIVATE KEY" in text:
        raise ValueError("a private key; only the public one is needed here")
    is_certificate = b"BEGIN CERTIFICATE" in text
    try:
        public = x509.load_pem_x509_certificate(text).public_key() if is_certificate else load_pem_public_key(text)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    key = _usable(None, public, ALGORITHMS)
    if key is None:
        raise ValueError("a key of a kind that is not accepted")
    return (key,)


def _of_jwk(jwk: Mapping[str, Any]) -> Key | None:
    kid, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(kid, str | None):
        return None
    if "d" in jwk or jwk.get("use", "sig") != "sig":
        return None
    try:
        public = PyJWK(dict(jwk)).key
    except (PyJWTError, ValueError, TypeError, KeyError, NotImplementedError):
        return None
    return _usable(kid, public, ALGORITHMS & {jwk["alg"]} if "alg" in jwk else ALGORITHMS)


def _usable(kid: str | None, public: Any, allowed: frozenset[str]) -> Key | None:
    match public:
        case RSAPublicKey() if public.key_size >= SMALLEST_RSA_BITS:
            fitting = _RSA
        case EllipticCurvePublicKey(curve=SECP256R1()):
            fitting = frozenset({"ES256"})
        case EllipticCurvePublicKey(curve=SECP384R1()):
            fitting = frozenset({"ES384"})
        case Ed25519PublicKey():
            fitting = frozenset({"EdDSA"})
        case _:
            return None
    return Key(kid, public, fitting & allowed) if fitting & allowed else None


def named(keys: Sequence[Key], kid: str | None) -> list[Key]:
    """The keys that a token may mean: all, if either says no name."""
    return [key for key in keys if kid is None or key.kid is None or key.kid == kid]


def read_head(token: str) -> Head:
    """Which key a token is to be checked with.

    Raises:
        TokenRefusedError: it is no JWT, or none that could be accepted whatever its key.
    """
    if len(token) > MOST_CHARACTERS:
        raise TokenRefusedError("The token is too long.")
    try:
        head = _JWS.get_unverified_header(token)
    except (PyJWTError, UnicodeError) as error:
        raise TokenRefusedError("The token is not a signed JWT.") from error
    algorithm, kind = head.get("alg"), head.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefusedError("The token is signed by an algorithm that is not accepted.")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefusedError("The token is not an access token.")
    return Head(algorithm, head.get("kid"))


def verify(token: str, head: Head, keys: Sequence[Key]) -> Mapping[str, Any]:
    """What a token claims, once one of these keys has signed it.

    Raises:
        TokenRefusedError: none of them has.
    """
    if not keys:
        raise TokenRefusedError("The token is signed by a key that the issuer does not have.")
    for key in keys:
        if head.algorithm not in key.algorithms:
            continue
        try:
            claims = json.loads(_JWS.decode(token, key.public, algorithms=[head.algorithm]))
        except InvalidSignatureError:
            continue
        except (PyJWTError, ValueError) as error:
            raise TokenRefusedError("The token is not a signed JWT.") from error
        if isinstance(claims, dict):
            return claims
        raise TokenRefusedError("The token makes no claims.")
    raise TokenRefusedError("The signature of the token is wrong.")


def judge(claims: Mapping[str, Any], rules: Rules, now: float) -> Caller:
    """Who asks, by what a token with a good signature claims.

    Args:
        claims: of the token
        rules: ours
        now: seconds since 1970

    Raises:
        TokenRefusedError: it is of another issuer, for another audience, not valid now, or says too little.
    """
    if claims.get("iss") != rules.issuer:
        raise TokenRefusedError("The token is of another issuer.")
    audience = claims.get("aud")
    if rules.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenRefusedError("The token is for another audience.")
    if (expires := _moment(claims, "exp")) is None:
        raise TokenRefusedError("The token never expires.")
    if now >= expires + rules.leeway:
        raise TokenRefusedError("The token has expired.")
    if any((begins := _moment(claims, name)) is not None and now < begins - rules.leeway for name in ("nbf", "iat")):
        raise TokenRefusedError("The token is not valid yet.")
    subject = claims.get("sub")
    subject = subject.strip() if isinstance(subject, str) else ""
    if not 1 <= len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        raise TokenRefusedError(f"The token names no subject of 1 to {LONGEST_SUBJECT} printable characters.")
    # What some issuers give to services. Beside scopes, roles would let an application do more than it was lent.
    told = ("scope", "scp") if claims.keys() & {"scope", "scp"} else ("roles",)
    return Caller(subject, frozenset().union(*(_words(claims.get(name)) for name in told)))


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # Nor is it NaN, infinite or too large to be added to, which JSON in Python may be.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LAST_MOMENT:
        raise TokenRefusedError(f"The token's {name} is not a number.")
    return value


def _words(value: Any) -> frozenset[str]:
    """Scopes: in one text (RFC 8693, section 4.2), or as the list that some issuers make."""
    listed = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else ()
    return frozenset(one for one in listed if one and isinstance(one, str))
