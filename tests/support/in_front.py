"""A socket in front of a PostgreSQL server's: what a proxy and a pooler of the tests share."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self


class InFront(ABC):
    """A socket in a folder, served by a thread of its own while it is entered."""

    def __init__(self, target: Path, folder: Path) -> None:
        self._target = target
        self._folder = folder

    def url(self, url: str) -> str:
        """Return the URL of a store by way of this socket."""
        return url.replace(str(self._target.parent), str(self._folder))

    def __enter__(self) -> Self:
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        is_listening = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._until_left(is_listening)))
        self._thread.start()
        is_listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _until_left(self, is_listening: threading.Event) -> None:
        await self._listen(is_listening)
        await asyncio.sleep(0)  # what was aborted is closed by the loop's next turn

    async def _listen(self, is_listening: threading.Event) -> None:
        listening = await asyncio.start_unix_server(self._begin, self._folder / self._target.name)
        is_listening.set()
        await self._end.wait()
        listening.close()
        for (
            writer
        ) in self._clients.values():  # so that what serves them ends: cancelled, it could lose what it connects
            writer.transport.abort()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # those of asyncio that accept a client, too
            _, late = await asyncio.wait(others, timeout=1)
            for task in late:
                task.cancel()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._end.is_set():
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients[task] = writer
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        writer = self._clients.pop(task)  # kept until it is closed: one that is let go before is taken for forgotten
        writer.transport.abort()

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client; the way to him is broken when this ends."""
