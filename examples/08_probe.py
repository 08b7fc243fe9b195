"""A service without idempotency keys, but with a truthful look-up: wait behind the fence, then ask, then decide."""

import asyncio
import tempfile

import surefoot as sf

TICKETS: dict[str, str] = {}  # the service's records, by the client's reference
SENT: list[str] = []


async def find_ticket(title: str) -> sf.Landed | sf.NotLanded:
    number = TICKETS.get(sf.current_effect().idempotency_key)
    print(f"  asked for {title!r}:", number or "nothing there")
    return sf.Landed(number) if number else sf.NotLanded()


@sf.effect(in_doubt=sf.Probe(find_ticket, longest_life="300ms"))  # no request of ours lands later than that
async def open_ticket(title: str) -> str:
    effect = sf.current_effect()
    SENT.append(title)
    if title == "straggler":  # arrives 150 ms after we gave up: asked too early, the service would say "nothing there"
        asyncio.get_running_loop().call_later(0.15, TICKETS.__setitem__, effect.idempotency_key, "T-1")
        raise TimeoutError
    if SENT.count(title) == 1:  # lost on the way
        raise TimeoutError
    return TICKETS.setdefault(effect.idempotency_key, "T-2")


async def main(url: str) -> None:
    async with sf.Surefoot(url):
        for title in ("straggler", "lost"):
            number = await open_ticket(title)
            print(f"{title}: {number}, sent {SENT.count(title)}x")
        print("tickets at the service:", len(TICKETS))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

#   asked for 'straggler': T-1
# straggler: T-1, sent 1x
#   asked for 'lost': nothing there
# lost: T-2, sent 2x
# tickets at the service: 2
