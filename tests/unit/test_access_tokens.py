"""Which tokens are believed: by which keys, for what they say, when."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from runtime.access_tokens import (
    ALGORITHMS,
    LONGEST_SUBJECT,
    MOST_CHARACTERS,
    Caller,
    TokenRefusedError,
    judge,
    named,
    read_head,
    read_keys,
    verify,
)
from tests.tokens import ISSUER, OURS, RULES, THEIRS, claims, forged_with_public_key, jwk, jwks, mint, new_key, pem

NOW = 1_768_298_400.0
RSA = rsa.generate_private_key(65537, 2048)


def believed(token: str, keys: bytes, now: float = NOW) -> Caller:
    head = read_head(token)
    return judge(verify(token, head, named(read_keys(keys), head.kid)), RULES, now)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_each_algorithm_on_the_list_is_taken_from_a_key_of_its_kind(algorithm: str) -> None:
    key: Any = {"R": RSA, "P": RSA, "E": OURS}[algorithm[0]]
    if algorithm == "ES384":
        key = ec.generate_private_key(ec.SECP384R1())
    if algorithm == "EdDSA":
        key = ed25519.Ed25519PrivateKey.generate()
    token = mint("files:read", "files:write", key=key, algorithm=algorithm, now=NOW)
    assert believed(token, pem(key)) == Caller("ivanov", frozenset({"files:read", "files:write"}))


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "not a signed JWT"),
        ("a.b.c", "not a signed JWT"),
        ("a" * (MOST_CHARACTERS + 1), "too long"),
        (mint(key=None, algorithm="none"), "algorithm that is not accepted"),
        (forged_with_public_key(), "algorithm that is not accepted"),
        (mint(head={"typ": "logout+jwt"}), "not an access token"),
        (mint(head={"crit": ["exp"]}), "not a signed JWT"),
        (mint().rpartition(".")[0], "not a signed JWT"),
    ],
    ids=range(8),
)
def test_what_no_key_could_make_good_is_refused_before_a_key_is_looked_for(token: str, why: str) -> None:
    with pytest.raises(TokenRefusedError, match=why):
        read_head(token)


@pytest.mark.parametrize(
    ("token", "keys", "why"),
    [
        (mint(key=THEIRS), jwks(one=OURS), "signature of the token is wrong"),
        (mint(kid="two"), jwks(one=OURS), "a key that the issuer does not have"),
        (mint(key=RSA, algorithm="RS256"), jwks(one=OURS), "signature of the token is wrong"),
        (mint()[:-2] + "AA", jwks(one=OURS), "signature of the token is wrong"),
        (mint(), json.dumps({"keys": [jwk("one", OURS, use="enc")]}).encode(), "does not have"),
        (mint(), json.dumps({"keys": [jwk("one", OURS, key_ops=["encrypt"])]}).encode(), "does not have"),
        (mint(), json.dumps({"keys": [jwk("one", OURS, alg="ES384")]}).encode(), "does not have"),
        (mint(), json.dumps({"keys": [jwk("one", OURS, d="AA")]}).encode(), "does not have"),
        (mint(), b'{"keys": []}', "does not have"),
        (mint(), b'{"keys": [1, {"kty": "oct", "k": "AAAA", "kid": "one"}, {"kty": "EC"}]}', "does not have"),
    ],
    ids=range(10),
)
def test_a_signature_is_believed_of_a_key_that_may_sign_alone(token: str, keys: bytes, why: str) -> None:
    with pytest.raises(TokenRefusedError, match=why):
        believed(token, keys)


def test_a_token_or_a_key_without_a_name_is_tried_with_all() -> None:
    assert believed(mint(kid=None, now=NOW), jwks(one=THEIRS, two=OURS)).subject == "ivanov"
    assert believed(mint(kid="any", now=NOW), pem()).subject == "ivanov"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": None}, "another issuer"),
        ({"iss": ISSUER + "/"}, "another issuer"),
        ({"aud": "artstore2"}, "another audience"),
        ({"aud": ["other", "account"]}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"exp": None}, "never expires"),
        ({"exp": int(NOW) - 30}, "expired"),
        ({"exp": "2030"}, "exp is not a number"),
        ({"exp": True}, "exp is not a number"),
        ({"exp": math.nan}, "exp is not a number"),
        ({"exp": math.inf}, "exp is not a number"),
        ({"exp": 10**400}, "exp is not a number"),
        ({"nbf": math.nan}, "nbf is not a number"),
        ({"nbf": int(NOW) + 31}, "not valid yet"),
        ({"iat": int(NOW) + 31}, "not valid yet"),
        ({"nbf": []}, "nbf is not a number"),
        ({"sub": None}, "no subject"),
        ({"sub": " "}, "no subject"),
        ({"sub": "a\nb"}, "no subject"),
        ({"sub": "я" * (LONGEST_SUBJECT + 1)}, "no subject"),
    ],
    ids=str,
)
def test_claims_that_are_not_for_us_now_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(TokenRefusedError, match=why):
        judge(claims(NOW, **changes), RULES, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(NOW) - 29},
        {"nbf": int(NOW) + 30},
        {"iat": int(NOW) + 30},
        {"iat": None, "exp": NOW + 0.5},
        {"aud": ["account", "artstore"]},
    ],
    ids=str,
)
def test_clocks_may_differ_by_the_leeway_and_audiences_may_be_many(changes: dict[str, Any]) -> None:
    assert judge(claims(NOW, **changes), RULES, NOW).subject == "ivanov"


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({"scope": "files:read  openid"}, {"files:read", "openid"}),
        ({"scope": "files:read\u2003sync:admin"}, {"files:read\u2003sync:admin"}),
        ({"scope": None, "scp": ["files:read", "sync:admin", 5]}, {"files:read", "sync:admin"}),
        ({"scope": None, "scp": "files:read files:write"}, {"files:read", "files:write"}),
        ({"scope": None}, set()),
        ({"scope": {"files:read": 1}}, set()),
        ({"scope": None, "roles": ["sync:admin"]}, {"sync:admin"}),
        ({"scope": "files:read", "roles": ["sync:admin"]}, {"files:read"}),
    ],
    # A set is written in another order by each process.
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_scopes_are_read_as_any_issuer_writes_them(changes: dict[str, Any], scopes: set[str]) -> None:
    assert judge(claims(NOW, **changes), RULES, NOW).scopes == scopes


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "PEM"),
        (b"<html>", "PEM"),
        (b"{}", "no list of keys"),
        (b'{"keys": {}}', "no list of keys"),
        (b"{", "Expecting"),
        (OURS.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "a private key"),
        (pem(ec.generate_private_key(ec.SECP521R1())), "a kind that is not accepted"),
        (pem(rsa.generate_private_key(65537, 1024)), "a kind that is not accepted"),
    ],
    ids=range(8),
)
def test_what_holds_no_key_for_tokens_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_keys(text)


def test_a_certificate_is_taken_for_its_key() -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder(name, name, OURS.public_key(), 1, begin, begin + timedelta(days=1))
    certificate = built.sign(OURS, SHA256()).public_bytes(Encoding.PEM)
    assert believed(mint(now=NOW), certificate).subject == "ivanov"


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda some: some.decode("latin-1")))
def test_rubbish_is_refused_as_a_token_whatever_it_is(rubbish: str) -> None:
    with pytest.raises(TokenRefusedError):
        read_head(rubbish)


@given(st.integers(0, 10_000))
def test_a_token_of_which_anything_was_changed_is_refused(place: int) -> None:
    token = mint("files:read", now=NOW)
    place %= len(token)
    other = "A" if token[place] != "A" else "B"
    with pytest.raises(TokenRefusedError):
        believed(token[:place] + other + token[place + 1 :], jwks(one=OURS))


def test_keys_of_one_name_are_all_tried() -> None:
    both = json.dumps({"keys": [jwk("one", new_key()), jwk("one", OURS)]}).encode()
    assert believed(mint(now=NOW), both).subject == "ivanov"
