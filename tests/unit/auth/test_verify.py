"""Which hash answers which question."""

import pytest

from sternpost_auth.verify import DENIED, UNAVAILABLE, Check, api_key_fits, conclude, plan, stored_hash
from sternpost_mail.config import EMPTY_CONFIG, Credential, CredentialKind, build_config
from sternpost_mail.credentials import hash_api_key
from sternpost_mail.envelope import Lane
from sternpost_mail.identity import Identity, Verdict, VerifyReply, VerifyRequest

KEY = "sp_abcdEFGH_" + "k" * 43
OTHER_KEY = "sp_abcdEFGH_" + "x" * 43
UNKNOWN_KEY = "sp_zzzzzzzz_" + "k" * 43
ALICE = Credential("acme", "alice", CredentialKind.SMTP_PASSWORD, "alice", "$hash", ("example.com",), Lane.BULK)
API = Credential("acme", "api", CredentialKind.API_KEY, "sp_abcdEFGH", hash_api_key(KEY))
CONFIG = build_config([ALICE, API], 1, "sternpost")


def ask(login: str, secret: str) -> Check:
    check = plan(CONFIG, VerifyRequest(login, secret, "192.0.2.1"))
    assert isinstance(check, Check)
    return check


def test_without_a_complete_configuration_auth_cannot_tell() -> None:
    assert plan(EMPTY_CONFIG, VerifyRequest("alice", "x", "192.0.2.1")) is UNAVAILABLE


@pytest.mark.parametrize(
    ("login", "secret", "why"),
    [
        ("alice", "", "an empty secret is none"),
        ("", "", "nothing at all"),
        ("alice", "x" * 1025, "no secret is so long"),
        ("a" * 129, "x", "no login is so long"),
    ],
)
def test_what_can_be_no_login_is_denied_without_work(login: str, secret: str, why: str) -> None:
    assert plan(CONFIG, VerifyRequest(login, secret, "192.0.2.1")) is DENIED, why


def test_a_known_login_is_compared_with_its_own_hash_an_unknown_one_with_the_dummy() -> None:
    assert stored_hash(ask("alice", "x"), "dummy") == "$hash"
    assert stored_hash(ask("mallory", "x"), "dummy") == "dummy"


def test_a_granted_login_carries_what_it_may_do() -> None:
    reply = conclude(ask("alice", "x"), fits=True)
    assert reply == VerifyReply(Verdict.GRANTED, Identity("acme", "alice", ("example.com",), Lane.BULK))


def test_wrong_and_unknown_are_the_same_answer() -> None:
    assert conclude(ask("alice", "x"), fits=False) is conclude(ask("mallory", "x"), fits=False) is DENIED


def test_an_unknown_login_is_denied_even_if_its_password_were_the_dummys() -> None:
    assert conclude(ask("mallory", "x"), fits=True) is DENIED


@pytest.mark.parametrize(
    ("key", "fits"), [(KEY, True), (OTHER_KEY, False), (UNKNOWN_KEY, False), ("sp_bad", False), ("\ud800", False)]
)
def test_an_api_key_fits_only_whole(key: str, fits: bool) -> None:
    check = ask("", key)
    assert check.kind is CredentialKind.API_KEY
    assert api_key_fits(check) is fits
    assert conclude(check, api_key_fits(check)).verdict is (Verdict.GRANTED if fits else Verdict.DENIED)


@pytest.mark.parametrize(("login", "secret"), [("sp_abcdEFGH", KEY), ("sp_abcdEFGH", API.secret_hash)])
def test_an_api_key_is_no_smtp_login(login: str, secret: str) -> None:
    assert ask(login, secret).credential is None


def test_a_check_never_shows_its_secret() -> None:
    assert "hunter2" not in repr(ask("alice", "hunter2"))
