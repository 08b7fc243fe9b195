"""`surefoot leases`: who holds what, since when, and who waits for it."""

from __future__ import annotations

import asyncio

from tests.e2e.cli.conftest import Shell

import surefoot as sf


def test_who_holds_what_is_visible(shell: Shell) -> None:
    """Catches a holder that nobody can find, and a token or a name that is not the one in use."""

    async def look() -> None:
        app = sf.Surefoot(f"sqlite:///{shell.place}/agents.db", name="desk", is_worker=False)
        async with app, sf.lease("order/7") as lease, sf.semaphore("crm", limit=3):
            shown = await asyncio.to_thread(shell.type, "leases", "--json", "--store", shell.url)
            held, place = shown.document["leases"]
            assert (held["resource"], held["state"], held["token"]) == ("order/7", "held", lease.token)
            assert (held["owner"], held["holder"], held["life"]) == ("process", "desk", "alive")
            assert (place["kind"], place["places"]) == ("semaphore", 3)
            table = await asyncio.to_thread(shell.type, "leases", "--resource", "order/7", "--store", shell.url)
            assert "order/7" in table.out
            assert "crm" not in table.out

    asyncio.run(look())
    assert shell.here("leases", "--store", shell.url).err == "nobody holds anything\n"
