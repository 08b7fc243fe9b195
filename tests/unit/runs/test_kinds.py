"""Kinds of runs: which functions can be one, and what becomes of their input."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import surefoot as sf
from surefoot.journal import Undecodable
from surefoot.runs.durable import KindSpec, kind_of, known_kinds, register
from surefoot.runs.errors import UnknownKind

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers  # type: ignore[import-not-found]  # that is the point


def test_a_function_that_is_not_async_is_refused_with_what_to_write() -> None:
    """Catches a run whose code could not be awaited, told only when it is started."""

    def plain() -> None: ...

    with pytest.raises(sf.SurefootError, match="plain is not async") as caught:
        sf.durable(plain)  # type: ignore[arg-type]  # that is the point
    assert "async def plain(...)" in caught.value.hint


async def of_all_sorts(first: int, *more: date, day: date = date(2026, 1, 1), **rest: date) -> str:
    return ""


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ((1, date(2026, 2, 3), date(2026, 2, 4)), {"day": date(2026, 3, 4)}),
        ((1,), {"other": date(2026, 5, 6), "one_more": date(2026, 5, 7)}),
    ],
)
def test_input_of_every_sort_comes_back_as_it_was_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Catches a parameter that is lost, or comes back as text, when a run is executed in another process."""
    kind = KindSpec("of all sorts", of_all_sorts)
    again_args, again_kwargs = kind.load_input(kind.dump_input(args, kwargs)[0])
    assert tuple(again_args) == args
    assert again_kwargs == {"day": date(2026, 1, 1), **kwargs}


def test_recorded_input_that_the_function_no_longer_takes_is_named() -> None:
    """Catches a deployment that drops a parameter, and with it what the run was told."""

    async def changed(kept: int) -> None: ...

    kind = KindSpec("changed", changed)
    assert kind.load_input(b'{"kept":1}') == ([1], {})
    with pytest.raises(Undecodable, match="has gone, lost, which it no longer takes"):
        kind.load_input(b'{"kept":1,"lost":2,"gone":3}')


@pytest.mark.parametrize(
    ("declared", "fit", "unfit", "words"),
    [
        (int, 7, "7", "int, and is given str"),
        (int, 0, None, "int, and is given NoneType"),
        (float, 7, "7", "float, and is given str"),
        (str, "7", 7, "str, and is given int"),
        (bool, True, 1, "bool, and is given int"),
        (dict, {"a": 1}, [1], "dict, and is given list"),
    ],
)
def test_input_of_a_plain_type_must_fit_it(declared: Any, fit: Any, unfit: Any, words: str) -> None:
    """Catches a number that a function is given as a text, because a deploy has changed the type of its parameter, and a
    run that is started with what it can't be given."""

    async def takes(first, *more, **rest):  # type: ignore[no-untyped-def]  # the types come with the test
        ...

    takes.__annotations__ = dict.fromkeys(("first", "more", "rest"), declared)
    kind = KindSpec("takes", takes)
    assert kind.load_input(kind.dump_input((fit, fit), {"a": fit})[0]) == ([fit, fit], {"a": fit})
    for name, args, kwargs in (
        ("first", (unfit,), {}),
        ("more", (fit, unfit), {}),
        ("rest", (fit,), {"a": unfit}),
    ):
        with pytest.raises(sf.Unserializable, match=rf"takes\({name}\): it takes {words}"):
            kind.dump_input(args, kwargs)
        recorded = {"first": args[0], "more": args[1:], "rest": kwargs}
        with pytest.raises(Undecodable, match=rf"takes\({name}\): the recorded value no longer fits: it takes {words}"):
            kind.load_input(msgspec.json.encode(recorded))


def test_a_parameter_takes_its_own_default_and_without_a_type_anything() -> None:
    """Catches a run that is refused because of `x: int = None`, as it is often written."""

    async def takes(x=None, y=1, z: Any = 2):  # type: ignore[no-untyped-def]  # the type of x comes behind it
        ...

    takes.__annotations__["x"] = int

    kind = KindSpec("takes", takes)
    assert kind.load_input(kind.dump_input((), {"y": "text", "z": [1]})[0]) == ([None, "text", [1]], {})


def test_a_name_that_only_type_checkers_know_is_no_annotation() -> None:
    """Catches a module that can't be imported because of an import under TYPE_CHECKING."""

    async def annotated(value: OnlyForTypeCheckers) -> OnlyForTypeCheckers: ...

    kind = KindSpec("annotated", annotated)
    assert kind.load_input(kind.dump_input(([1, "two"],), {})[0]) == ([[1, "two"]], {})
    assert kind.result.load(kind.result.dump({"a": 1})[0]) == {"a": 1}


def test_two_functions_of_one_name_are_refused_but_not_the_same_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that is gone on with by the code of another."""
    monkeypatch.setattr(sys.modules[KindSpec.__module__], "_registered", {})
    first, second, again = (KindSpec("known twice", of_all_sorts) for _ in range(3))
    second.function = inspect.isawaitable  # type: ignore[assignment]  # some function of another place
    register(first)
    register(again)
    assert kind_of("known twice") is again
    with pytest.raises(sf.SurefootError, match=r"two durable functions .*of_all_sorts and inspect\.isawaitable"):
        register(second)
    assert kind_of("known twice") is again
    assert known_kinds() == ["known twice"]


SCRIPT = """
import asyncio, importlib, sys
import surefoot as sf

@sf.durable
async def scripted(x: int) -> int:
    return x

async def main():
    sys.path.insert(0, ".")
    app = importlib.import_module("script").scripted  # what a web server does that is given "script:app"
    async with sf.Surefoot("sqlite:///agents.db") as opened:
        for number, one in enumerate((scripted, app, "scripted")):
            run = await opened.start(one, number, id=str(number))
            print(await run.result())

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_file_that_runs_as_script_and_is_imported_has_its_functions_once(tmp_path: Path) -> None:
    """Catches a web server that is started at the end of its own module, and refused as another program."""
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.split() == ["0", "1", "2"], ended.stderr


def test_what_is_no_durable_function_is_said_to_be_none() -> None:
    """Catches an AttributeError, or a run of nothing, for a function without @sf.durable."""
    with pytest.raises(UnknownKind, match="is no durable function") as caught:
        kind_of(of_all_sorts)
    assert "@sf.durable" in caught.value.hint
    with pytest.raises(UnknownKind, match="no durable function is called 'nobody'; known: "):
        kind_of("nobody")
