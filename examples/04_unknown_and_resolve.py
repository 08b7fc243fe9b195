"""Nobody knows whether the letter went out: the run waits in doubt, a person looks and says so, the run goes on."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile

import surefoot as sf


@sf.effect(in_doubt=sf.AskPerson())  # the default: the post office offers no way to find out
async def post_letter(to: str) -> str:
    raise TimeoutError("no answer")


@sf.durable
async def invite(guest: str) -> str:
    return f"invited {guest}: {await post_letter(guest)}"


def surefoot(*words: str) -> str:
    """Run a command as a person would in a terminal."""
    done = subprocess.run([sys.executable, "-m", "surefoot", *words], capture_output=True, text=True, check=True)
    return done.stdout


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(invite, "ann", id="invitation-1")
        while (status := await run.status()).state != "waiting":
            with contextlib.suppress(TimeoutError):
                await run.result(timeout_s=0.1)
        print(status.state, "for", status.reason)

        listed = await asyncio.to_thread(surefoot, "unknowns", "--store", url)
        print("listed:", "post_letter" in listed)

        person = ("--by", "bob", "--reason", "saw it in the outbox", "--done", "--value", '"LX-7"')
        await asyncio.to_thread(surefoot, "resolve", "1", *person, "--store", url)
        print(await run.result(timeout_s=30))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# waiting for doubt: effect post_letter: TimeoutError: no answer; the service offers no way to find out
# listed: True
# invited ann: LX-7
