"""Secrets: what is not shown, and what is not kept because it would come back as stars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, PlainSerializer, SecretBytes, SecretStr

import surefoot as sf
from surefoot.journal import codec_of
from surefoot.journal.redaction import HIDDEN, is_secret_name, redacted, redacted_text


class Login(BaseModel):
    user: str
    password: SecretStr


@dataclass(slots=True)
class Slots:
    key: SecretStr


Plain = Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value(), when_used="json")]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (SecretStr, SecretStr("hunter2")),
        (SecretBytes, SecretBytes(b"hunter2")),
        (Login, Login(user="ann", password=SecretStr("hunter2"))),
        (list[Login], [Login(user="ann", password=SecretStr("hunter2"))]),
        (dict[str, SecretStr], {"a": SecretStr("hunter2")}),
        (Slots, Slots(SecretStr("hunter2"))),
        (object, SecretStr("hunter2")),
    ],
)
def test_what_would_come_back_as_stars_is_refused(declared: Any, value: Any) -> None:
    """Catches an effect that is called with ten stars in the place of a password."""
    with pytest.raises(sf.Unserializable):
        codec_of(declared, "login").dump(value)


def test_what_comes_back_as_it_was_is_kept() -> None:
    """Catches a refusal of harmless stars, of an empty secret, and of one whose author says how it is written."""
    assert codec_of(Login, "x").dump(Login(user="ann", password=SecretStr("")))[1].password.get_secret_value() == ""
    assert codec_of(Plain, "x").dump(SecretStr("hunter2"))[1].get_secret_value() == "hunter2"
    assert codec_of(list[str], "x").dump(["**********"])[1] == ["**********"]


async def test_an_effect_never_gets_stars(app: sf.Surefoot) -> None:
    """Catches an act with stars, first or after a crash: it is refused before anything is claimed or recorded."""
    got: list[str] = []

    @sf.effect(key="login:{user}")
    async def login(user: str, password: SecretStr) -> None:
        got.append(password.get_secret_value())

    with pytest.raises(sf.Unserializable, match=r"come back as stars\n  hint: take the secret from where it is kept"):
        await login("ann", SecretStr("hunter2"))
    assert got == []
    rows = app.store.read_now(lambda connection: connection.execute("SELECT count(*) FROM journal").fetchall())
    assert rows == [(0,)]


@pytest.mark.parametrize(
    "name",
    ["password", "db_password", "dbPassword", "API_KEY", "apiKey", "api-key", "apikey", "authorization", "Authorization",
     "access_token", "accessToken", "client_secret", "private_key", "cookie", "card_number", "cvv", "X-Api-Key"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    """Catches a usual name of a secret that is shown."""
    assert is_secret_name(name)
    assert redacted({name: "hunter2", "a": [{name: {"deep": "hunter2"}}]}) == {name: HIDDEN, "a": [{name: HIDDEN}]}


@pytest.mark.parametrize(
    "name",
    [
        "prompt_tokens",
        "max_tokens",
        "key",
        "order_id",
        "keyboard",
        "secretary",
        "passenger",
        "tokenizer",
        "author",
        "pin",
    ],
)
def test_names_that_are_none(name: str) -> None:
    """Catches a document in which nothing can be read any more."""
    assert not is_secret_name(name)
    assert redacted({name: "plain"}) == {name: "plain"}


@pytest.mark.parametrize(
    "secret",
    ["sk-proj-abcdefghijklmnopqrst", "sk_live_abcdefghijklmnop", "ghp_abcdefghijklmnopqrstuvwxyz0123",
     "AKIAABCDEFGHIJKLMNOP", "xoxb-1234567890-abcdef", "AIzaSyA1234567890abcdefghijklmnopqrstuv",
     "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_123", "Bearer abcdefghijklmnop",
     "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"],
)  # fmt: skip
def test_looks_of_secrets(secret: str) -> None:
    """Catches a key in the middle of a text."""
    assert redacted_text(f"before {secret} after") == f"before {HIDDEN} after"
    assert redacted({"note": [f"see {secret}"]}) == {"note": [f"see {HIDDEN}"]}


def test_secrets_with_their_names_inside_a_text() -> None:
    """Catches a password in an error's message, and a sentence that is torn apart for nothing."""
    assert redacted_text("postgres://ann:hunter2@db/x") == f"postgres://{HIDDEN}@db/x"
    assert redacted_text('{"password": "hun ter2", "a": 1}') == f'{{"password": {HIDDEN}, "a": 1}}'
    assert redacted_text("db_password=hunter2 host=db") == f"db_password={HIDDEN} host=db"
    assert redacted_text("api_key: 'abc'") == f"api_key: {HIDDEN}"
    for plain in (
        "the token was stale",
        "token=3",
        "a password is needed",
        "max_tokens: 100",
        "sk-1",
        "Bearer of news",
    ):
        assert redacted_text(plain) == plain


def test_counts_and_nothing_are_no_secrets() -> None:
    """Catches evidence whose fencing token can't be read, and a flag or a null that looks like a value."""
    value = {"token": 3, "password": None, "has_secret": True, "cvv": 123}
    assert redacted(value) == {"token": 3, "password": None, "has_secret": True, "cvv": HIDDEN}
    assert value["cvv"] == 123
    assert redacted({"amount": 5, "card": "x"}, ("card",)) == {"amount": 5, "card": HIDDEN}
