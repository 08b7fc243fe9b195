"""A schedule without a scheduler: cron starts the run on every machine; the id, of name and time, makes it one run."""

import asyncio
import tempfile
from datetime import UTC, datetime

import surefoot as sf


@sf.durable
async def report(day: str) -> str:
    return f"report of {day}"


async def from_cron(app: sf.Surefoot, moment: datetime) -> sf.Run:
    """What each machine's cron calls: `0 6 * * *`; late, early, or twice."""
    day = f"{moment:%Y-%m-%d}"
    return await app.start(report, day, id=f"report {day}")


async def main(url: str) -> None:
    six = datetime(2026, 11, 27, 6, tzinfo=UTC)
    machines = [sf.Surefoot(url) for _ in range(3)]
    for machine in machines:
        await machine.open()
    runs = await asyncio.gather(*(from_cron(machine, six) for machine in machines * 2))
    print({await run.result(timeout_s=10) for run in runs})
    print(len(await machines[0].runs(kind="report")), "run")
    for machine in machines:
        await machine.close()


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# {'report of 2026-11-27'}
# 1 run
