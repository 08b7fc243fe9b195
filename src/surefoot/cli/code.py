"""The user's code: the module that holds durable functions and, perhaps, the app they belong to.

What holds: when the module has an app, its own gates and store are used, so that nothing typed at a command line goes
around them; a store named beside it must be the same.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from surefoot.app import Surefoot
from surefoot.cli.exits import WrongUsage
from surefoot.cli.place import find_url
from surefoot.problem import SurefootError
from surefoot.runs import KindSpec, kind_of, known_kinds
from surefoot.runs.durable import KIND
from surefoot.store import shown

EXAMPLE = "the form is MODULE:FUNCTION, for example shop.agents:refund"


def load_module(name: str) -> ModuleType:
    """Import a module by its dotted name; the current directory is searched too.

    Raises:
        WrongUsage: There is none, or it raised; the message says where.
    """
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    if name.endswith(".py") or "/" in name:
        module = name.removesuffix(".py").strip("/").replace("/", ".")
        raise WrongUsage(f"{name!r} is a path, not the name of a module", hint=f"{module}; {EXAMPLE}")
    if not all(name.split(".")):
        raise WrongUsage(f"{name!r} is no name of a module", hint=EXAMPLE)
    try:
        return importlib.import_module(name)
    except SurefootError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            if Path(name).is_file():
                raise WrongUsage(
                    f"{name!r} is a file, and no module", hint=f"a store here: sqlite:///{name}"
                ) from error
            raise WrongUsage(
                f"there is no module {error.name!r} in {here} or on the Python path", hint=EXAMPLE
            ) from error
        raise WrongUsage(
            f"importing {name} raised {type(error).__name__}: {error}{_place_of(error)}", hint="mend the module first"
        ) from error


def _place_of(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError):
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""


def find_kind(target: str) -> tuple[ModuleType, KindSpec]:
    """Return the durable function or agent that "module:name" means.

    Raises:
        WrongUsage: No such module or name, or it is not durable; the message lists what is.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not name:
        raise WrongUsage(f"{target!r} names no function", hint=EXAMPLE)
    module = load_module(module_name)
    found = _walk(module, name)
    kind = getattr(found, KIND, None)
    if isinstance(kind, KindSpec):
        return module, kind
    for title in (f"agent {getattr(found, 'name', None)}", name):  # what `app.agent` returns; a kind by its own name
        if title in known_kinds():
            return module, kind_of(title)
    what = "is not there" if found is None else "is no durable function"
    raise WrongUsage(
        f"{target}: {name!r} {what}; durable in this process: {', '.join(own_kinds()) or 'nothing'}",
        hint="put @sf.durable above it, or make it an agent with app.agent(...)",
    )


def _walk(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def own_kinds() -> list[str]:
    """Return the durable functions of this process, without those that Surefoot brings."""
    return [kind for kind in known_kinds() if not kind.startswith("surefoot ")]


def find_app(module: ModuleType, name: str | None, given: str | None, *, is_made: bool = True) -> Surefoot:
    """Return the app to execute runs with: the one named, the only one in the module, or a new one on a store.

    Args:
        module: The user's module.
        name: The app's name in it; None to look for one.
        given: The store that was named, or None.
        is_made: Whether the command may make a store that was named and is not there.

    Raises:
        WrongUsage: The name is no app, there are several, or it is on another store than the one named.
    """
    apps = {key: value for key, value in vars(module).items() if isinstance(value, Surefoot)}
    if name is not None:
        found = _walk(module, name)
        if not isinstance(found, Surefoot):
            raise WrongUsage(
                f"{module.__name__}:{name} is no app",
                hint=f"apps in it: {', '.join(apps) or 'none; leave the name out and give --store'}",
            )
        return _on(found, f"{module.__name__}:{name}", given)
    if len({id(app) for app in apps.values()}) > 1:
        raise WrongUsage(
            f"{module.__name__} has several apps: {', '.join(apps)}", hint=f"surefoot worker {module.__name__}:NAME"
        )
    if apps:
        only, app = next(iter(apps.items()))
        return _on(app, f"{module.__name__}:{only}", given)
    return Surefoot(find_url(given, is_made=is_made))


def _on(app: Surefoot, title: str, given: str | None) -> Surefoot:
    if given is not None and given != app.url:
        raise WrongUsage(
            f"{title} keeps its runs in {shown(app.url)}, and the store named is {shown(given)}",
            hint="leave --store and SUREFOOT_URL out, or build the app with sf.Surefoot(), which takes SUREFOOT_URL",
        )
    return app


def require_executing(app: Surefoot) -> None:
    """Refuse an app that was told not to execute runs. Call it when the app is open."""
    if not app.worker.is_executing:
        raise WrongUsage("this app executes no runs: it was made with is_worker=False", hint="leave is_worker out")
