"""Stands between a client and any MCP server over stdio: notes the calls, and springs the armed fault.

python -m tests.mcp.relay FOLDER COMMAND...

It outlives the client where a request is still on its way, as a network would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.mcp.faults import Books, Fault

books = Books(Path(sys.argv[1]))
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert server.stdin is not None
assert server.stdout is not None
waiting: dict[Any, tuple[dict[str, Any], Fault | None]] = {}


def answers() -> None:
    """Hand the server's messages on, but for those of which a fault says otherwise."""
    assert server.stdout is not None
    for line in server.stdout:
        message = json.loads(line)
        call, fault = waiting.pop(message.get("id"), (None, None)) if "method" not in message else (None, None)
        if call is not None:
            books.note(call, message.get("result"))
            if fault is not None:
                if fault.what == "acted":
                    books.kill()
                continue
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except OSError:  # the client is gone
            pass


def late(line: bytes, after_s: float) -> None:
    """Let a request arrive after its sender's death."""
    books.kill()
    time.sleep(after_s)
    hand_on(line)


def hand_on(line: bytes) -> None:
    """Give the server a message."""
    assert server.stdin is not None
    server.stdin.write(line)
    server.stdin.flush()


reader = threading.Thread(target=answers)
reader.start()
for line in sys.stdin.buffer:
    message = json.loads(line)
    if message.get("method") != "tools/call":
        hand_on(line)
        continue
    call = message["params"]
    fault = books.take(call)
    if fault is None or fault.what != "lost":
        waiting[message["id"]] = (call, fault)
    if fault is None or fault.what == "acted":
        hand_on(line)
    elif fault.what == "lost":
        books.kill()
    else:
        late(line, fault.straggles_s)
while waiting:  # its answer is still to be noted
    time.sleep(0.01)
server.stdin.close()
reader.join()
sys.exit(server.wait())
