"""Addresses of clusters, as a user may write them."""

from __future__ import annotations

import pytest

import surefoot as sf
from surefoot.adapters.temporal.address import Address, parse


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("temporal://host", Address("host:7233")),
        ("temporal://host:7000/", Address("host:7000")),
        ("temporal://host:7233/orders?task_queue=agents", Address("host:7233", "orders", "agents")),
        ("temporal://[::1]:7233/orders?tls=true", Address("[::1]:7233", "orders", is_tls=True)),
    ],
)
def test_what_a_url_names(url: str, found: Address) -> None:
    """Would catch a part that is dropped, or a default that changes."""
    assert parse(url) == found


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host", "no address"),
        ("temporal://", "no address"),
        ("temporal://host:port/x", "no address"),
        ("temporal://me:secret@host/x", "no address"),
        ("temporal://host/a/b", "one namespace"),
        ("temporal://host/a?queue=x", "'queue' is no parameter"),
        ("temporal://host/a?task_queue=", "task queue with a name"),
        ("temporal://host/a?tls=yes", "tls='yes'"),
    ],
)
def test_what_is_refused(url: str, words: str) -> None:
    """Would catch a mistake that is taken for something else, and a password in a message."""
    with pytest.raises(sf.SurefootError, match=words) as refused:
        parse(url)
    assert "secret" not in str(refused.value)
