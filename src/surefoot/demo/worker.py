"""A worker process of the demo: opens the store, tells the shop that it may be killed, and executes runs.

    python -m surefoot.demo.worker DIRECTORY

It is a member of a `crew`: it waits for its name on stdin, says `ready` on stdout once it takes runs, and stops at
SIGTERM or when its stdin is closed, so that it does not outlive who started it. Ctrl-C is theirs to handle.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

import surefoot as sf
from surefoot.demo.agent import clerk
from surefoot.demo.client import open_shop
from surefoot.demo.crew import await_name
from surefoot.demo.minds import mind, settings_for
from surefoot.demo.place import Place

LOOK_S = 0.1
OFFICE_RETRIES = 5  # connection retries with httpx's backoff outlast the shop's longest dark spell


async def work(place: Place, name: str) -> None:
    """Execute runs until told to stop."""
    setting = place.setting()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    _register(setting.shop_url)
    app = sf.Surefoot(place.url, name=name)
    async with open_shop(setting.shop_url) as shop:
        app.agent(clerk(mind(setting.model, setting.model_url), shop, settings_for(setting.model, setting.seed)))
        async with app:
            app.worker.room = setting.room
            print("ready", flush=True)
            while not stop.is_set() and app.worker.failure is None:
                await _either(stop, LOOK_S)
            if app.worker.failure is not None:
                raise app.worker.failure


async def _either(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await stop.wait()
    except TimeoutError:
        return


def _register(shop_url: str) -> None:
    """Allow the shop to kill this process; it is the one who knows when a call is half done."""
    transport = httpx.HTTPTransport(trust_env=False, retries=OFFICE_RETRIES)
    with httpx.Client(base_url=shop_url, transport=transport, trust_env=False) as office:
        office.post("/_control/workers", json={"pid": os.getpid()}).raise_for_status()


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and work."""
    parser = argparse.ArgumentParser(prog="python -m surefoot.demo.worker", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path, help="the demo's directory")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(work(Place(options.directory), await_name()))


if __name__ == "__main__":
    main()
