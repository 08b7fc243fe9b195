"""Workers that die in the middle of a call: real processes, real SIGKILLs, sent by the shop."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from surefoot.demo.faults import FaultKind
from surefoot.demo.killing import KillOrder, Moment
from surefoot.demo.shop_process import RunningShop

Booked = Callable[[str], list[object]]

# A worker with nothing but the standard library, so that it starts fast: it registers through its parent, sends one
# refund, says what it got, and then waits for the end of its stdin.
WORKER = """
import http.client, json, os, sys
sys.stdin.readline()
shop = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
body = json.dumps({"order_id": sys.argv[3], "amount": "5.00", "reason": "broken"})
shop.request("POST", "/refunds", body, {"X-Worker-Pid": str(os.getpid()), "Idempotency-Key": sys.argv[3]})
print(shop.getresponse().status, flush=True)
sys.stdin.read()
"""


def _die_in_a_call(shop: RunningShop, order_id: str, moment: Moment, *, register: bool = True) -> int:
    seen = [int(str(call["effectful_n"])) for call in shop.calls() if call["effectful_n"]]
    shop.order_kills([KillOrder(max(seen, default=0) + 1, moment)])
    host, port = shop.url.removeprefix("http://").split(":")
    command = [sys.executable, "-S", "-c", WORKER, host, port, order_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        if register:
            shop.register_worker(worker.pid)
        worker.stdin.write("go\n")
        worker.stdin.flush()
        if not register:
            assert worker.stdout.readline() == "201\n"
            worker.stdin.close()
        return worker.wait(20)


@pytest.mark.parametrize("moment", list(Moment))
def test_a_worker_dies_at_its_moment(shop: RunningShop, order_id: str, booked: Booked, moment: Moment) -> None:
    """Would catch kills that miss their moment: the act happens whether its sender lives or not."""
    assert _die_in_a_call(shop, order_id, moment) == -signal.SIGKILL
    assert len(booked("refund")) == 1
    (call,) = (call for call in shop.calls() if call["key"] == order_id)
    assert [call["killed"], call["acted"]] == [moment, True]
    if moment is Moment.AFTER_ANSWER:
        assert call["answered"] == "201"
    fired = shop.kills()[-1]
    assert [fired["order"], fired["pid"]] == [{"nth": call["effectful_n"], "moment": moment}, call["worker_pid"]]


@pytest.mark.parametrize("fault", [FaultKind.STRAGGLES, FaultKind.CUTS, FaultKind.REFUSES])
def test_a_kill_and_a_fault_can_meet(shop: RunningShop, order_id: str, booked: Booked, fault: FaultKind) -> None:
    """Would catch a combination in which the kill is forgotten, or stops a request that is on its way."""
    shop.order_faults("POST /refunds", [fault])
    assert _die_in_a_call(shop, order_id, Moment.AFTER_ACT_BEFORE_ANSWER) == -signal.SIGKILL
    assert len(booked("refund")) == (1 if fault is FaultKind.STRAGGLES else 0)


def test_nobody_dies_who_was_not_registered(shop: RunningShop, order_id: str) -> None:
    """Would catch a shop that kills whatever pid a header names; the order waits for the next worker."""
    before = len(shop.kills())
    assert _die_in_a_call(shop, order_id, Moment.ON_ARRIVAL, register=False) == 0
    assert len(shop.kills()) == before
    open_orders = shop.office.get("/_control/kills").json()["open"]
    assert len(open_orders) == 1
    assert _die_in_a_call(shop, f"{order_id}", Moment.ON_ARRIVAL) == -signal.SIGKILL


def test_the_parent_of_the_shop_is_no_worker(shop: RunningShop) -> None:
    """Would catch a demo whose own process is shot by its shop."""
    host, port = shop.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("POST", "/_control/workers", json.dumps({"pid": os.getpid()}))
    assert connection.getresponse().status == 422
    connection.close()
