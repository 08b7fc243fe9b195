"""The servers of the sweep: what is called, what is declared about it, and how a person looks at their worlds.

=========================  ==============================================================================================
till                       ours, on the official SDK; over stdio and over streamable HTTP
filesystem, memory         `@modelcontextprotocol/server-*`, from npm
git, sqlite                `mcp-server-*`, from PyPI
=========================  ==============================================================================================

A scenario comes in manners: with *nothing* declared, a person ends each doubt; with its effects *declared*, a probe through
another tool of the same server does, or an overwrite; the till with *keys* dedupes on what we send in `_meta`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_ai.mcp import MCPToolset

import surefoot as sf
from surefoot.effects import Declaration

ROOT = Path(__file__).parents[2]
"""Where our own servers are started, as modules."""
STRAGGLES_S = 0.3
LONGEST_LIFE = "1s"
"""The fence of every probe here: longer than a straggler is late, and than a relay hands it on."""


@dataclass(frozen=True)
class Call:
    """One call that the scripted model makes."""

    label: str
    tool: str
    arguments: dict[str, Any]
    is_effect: bool = True


@dataclass(frozen=True)
class Scenario:
    """A server in one manner."""

    name: str
    manner: str
    command: Callable[[Path], list[str]]
    calls: Callable[[Path], list[Call]]
    prepare: Callable[[Path], object]
    state: Callable[[Path], Any]
    landed: Callable[[Path, Call], bool]
    effects: Callable[[MCPToolset, Path], Mapping[str, Declaration]] = lambda _server, _world: {}
    environment: Callable[[Path], dict[str, str]] = lambda _world: {}
    is_http: bool = False

    @property
    def title(self) -> str:
        """How tables call it."""
        return f"{self.name}, {self.manner}"

    def reads(self, world: Path) -> list[str]:
        """Return the tools that change nothing."""
        return sorted({call.tool for call in self.calls(world) if not call.is_effect})

    def overwritten(self, world: Path) -> set[str]:
        """Return the tools whose repetition changes nothing."""
        declared = self.effects(MCPToolset("http://127.0.0.1/mcp"), world)
        return {tool for tool, one in declared.items() if isinstance(one.options.get("in_doubt"), sf.Overwrite)}


def _probe(ask: Callable[..., Any]) -> Declaration:
    return sf.effect(in_doubt=sf.Probe(ask, longest_life=LONGEST_LIFE))


def _found(is_there: object) -> sf.Landed | sf.NotLanded:
    return sf.Landed("found") if is_there else sf.NotLanded()


# -- the till -----------------------------------------------------------------------------------------------------------


def _till_calls(_world: Path) -> list[Call]:
    return [
        Call("c0", "payments", {"order": "A-1"}, is_effect=False),
        Call("c1", "pay", {"order": "A-1", "cents": 500}),
        Call("c2", "price", {"item": "tea", "cents": 300}),
        Call("c3", "pay", {"order": "A-2", "cents": 700}),
    ]


def _till_entries(world: Path) -> list[dict[str, Any]]:
    books = world / "till.jsonl"
    return [json.loads(line) for line in books.read_text().splitlines()] if books.exists() else []


def _till_state(world: Path) -> Any:
    entries = _till_entries(world)
    paid = sorted((entry["order"], entry["cents"]) for entry in entries if entry["what"] == "pay")
    return paid, {entry["item"]: entry["cents"] for entry in entries if entry["what"] == "price"}


def _till_landed(world: Path, call: Call) -> bool:
    return any(call.arguments.items() <= entry.items() for entry in _till_entries(world))


def _till_probes(server: MCPToolset, _world: Path) -> Mapping[str, Declaration]:
    async def was_paid(order: str) -> sf.Landed | sf.NotLanded:
        return _found(await server.direct_call_tool("payments", {"order": order}))

    return {"pay": _probe(was_paid), "price": sf.effect(in_doubt=sf.Overwrite())}


def _till_keys(_server: MCPToolset, _world: Path) -> Mapping[str, Declaration]:
    keyed = sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
    return {"pay": keyed, "price": keyed}


def _till(*, is_http: bool) -> list[Scenario]:
    def command(*options: str) -> Callable[[Path], list[str]]:
        return lambda world: [sys.executable, "-m", "tests.mcp.server", str(world), *options]

    name = "till over HTTP" if is_http else "till over stdio"
    manners: dict[str, tuple[Callable[[Path], list[str]], Any]] = {
        "nothing": (command(), lambda _server, _world: {}),
        "declared": (command(), _till_probes),
        "keys": (command("--keys"), _till_keys),
    }
    return [
        Scenario(name, manner, how, _till_calls, Path.mkdir, _till_state, _till_landed, effects, is_http=is_http)
        for manner, (how, effects) in manners.items()
    ]


# -- servers of others --------------------------------------------------------------------------------------------------


def _installed(name: str) -> Path:
    return Path(os.environ.get("SUREFOOT_MCP_SERVERS", "")) / name


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _filesystem_calls(world: Path) -> list[Call]:
    notes = world / "files" / "notes"
    edit = {"path": str(notes / "a.txt"), "edits": [{"oldText": "one", "newText": "one, two"}]}
    return [
        Call("c0", "create_directory", {"path": str(notes)}),
        Call("c1", "write_file", {"path": str(notes / "a.txt"), "content": "one"}),
        Call("c2", "edit_file", edit),
        Call("c3", "move_file", {"source": str(notes / "a.txt"), "destination": str(notes / "b.txt")}),
        Call("c4", "list_directory", {"path": str(notes)}, is_effect=False),
    ]


def _filesystem_state(world: Path) -> Any:
    files = world / "files"
    return {str(path.relative_to(files)): _text(path) if path.is_file() else None for path in sorted(files.rglob("*"))}


def _filesystem_landed(world: Path, call: Call) -> bool:
    match call.tool:
        case "create_directory":
            return Path(call.arguments["path"]).is_dir()
        case "write_file":
            return _text(Path(call.arguments["path"])) == str(call.arguments["content"])
        case "edit_file":
            return "two" in _text(Path(call.arguments["path"]))
        case _:
            return Path(call.arguments["destination"]).exists()


def _filesystem_probes(server: MCPToolset, _world: Path) -> Mapping[str, Declaration]:
    async def was_edited(path: str, edits: list[dict[str, str]]) -> sf.Landed | sf.NotLanded:
        said = await server.direct_call_tool("read_text_file", {"path": path})
        return _found(edits[0]["newText"] in str(said))

    async def was_moved(destination: str) -> sf.Landed | sf.NotLanded:
        folder, name = str(Path(destination).parent), Path(destination).name
        return _found(name in str(await server.direct_call_tool("list_directory", {"path": folder})))

    again = sf.effect(in_doubt=sf.Overwrite())
    return {"create_directory": again, "write_file": again, "edit_file": _probe(was_edited),
            "move_file": _probe(was_moved)}  # fmt: skip


def _memory_calls(_world: Path) -> list[Call]:
    ann = {"name": "ann", "entityType": "person", "observations": ["likes tea"]}
    shop = {"name": "shop", "entityType": "place", "observations": []}
    relation = {"from": "ann", "to": "shop", "relationType": "owns"}
    return [
        Call("c0", "create_entities", {"entities": [ann, shop]}),
        Call("c1", "create_relations", {"relations": [relation]}),
        Call("c2", "add_observations", {"observations": [{"entityName": "ann", "contents": ["likes milk"]}]}),
        Call("c3", "read_graph", {}, is_effect=False),
    ]


def _memory_state(world: Path) -> Any:
    return sorted(json.dumps(json.loads(line), sort_keys=True) for line in _text(world / "memory.jsonl").splitlines())


def _memory_landed(world: Path, call: Call) -> bool:
    sign = {"create_entities": "likes tea", "create_relations": "owns", "add_observations": "likes milk"}[call.tool]
    return sign in _text(world / "memory.jsonl")


def _memory_probes(server: MCPToolset, _world: Path) -> Mapping[str, Declaration]:
    async def graph() -> dict[str, Any]:
        found: dict[str, Any] = await server.direct_call_tool("read_graph", {})
        return found

    async def were_created(entities: list[dict[str, Any]]) -> sf.Landed | sf.NotLanded:
        names = {entity["name"] for entity in (await graph())["entities"]}
        return _found(names >= {entity["name"] for entity in entities})

    async def are_related(relations: list[dict[str, Any]]) -> sf.Landed | sf.NotLanded:
        known = [(one["from"], one["to"]) for one in (await graph())["relations"]]
        return _found(all((one["from"], one["to"]) in known for one in relations))

    async def were_observed(observations: list[dict[str, Any]]) -> sf.Landed | sf.NotLanded:
        known = {entity["name"]: entity["observations"] for entity in (await graph())["entities"]}
        return _found(all(set(one["contents"]) <= set(known.get(one["entityName"], ())) for one in observations))

    return {"create_entities": _probe(were_created), "create_relations": _probe(are_related),
            "add_observations": _probe(were_observed)}  # fmt: skip


def _git(world: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(world / "repo"), *words], capture_output=True, text=True, check=True).stdout


def _git_prepare(world: Path) -> None:
    (world / "repo").mkdir(parents=True)
    _git(world, "init", "-q", "-b", "main")
    _git(world, "config", "user.email", "a@example.org")
    _git(world, "config", "user.name", "a")
    _git(world, "commit", "-q", "--allow-empty", "-m", "first")
    (world / "repo" / "a.txt").write_text("one")


def _git_calls(world: Path) -> list[Call]:
    repository = str(world / "repo")
    return [
        Call("c0", "git_status", {"repo_path": repository}, is_effect=False),
        Call("c1", "git_add", {"repo_path": repository, "files": ["a.txt"]}),
        Call("c2", "git_commit", {"repo_path": repository, "message": "add a"}),
        Call("c3", "git_create_branch", {"repo_path": repository, "branch_name": "next"}),
    ]


def _git_state(world: Path) -> Any:
    return (
        _git(world, "log", "--format=%s"),
        _git(world, "status", "--short"),
        _git(world, "branch", "--format=%(refname)"),
    )


def _git_landed(world: Path, call: Call) -> bool:
    match call.tool:
        case "git_add":
            return _git(world, "status", "--short").startswith("A")
        case "git_commit":
            return "add a" in _git(world, "log", "--format=%s")
        case _:
            return "next" in _git(world, "branch")


def _git_probes(server: MCPToolset, _world: Path) -> Mapping[str, Declaration]:
    async def was_committed(repo_path: str, message: str) -> sf.Landed | sf.NotLanded:
        return _found(message in str(await server.direct_call_tool("git_log", {"repo_path": repo_path})))

    async def is_branched(repo_path: str, branch_name: str) -> sf.Landed | sf.NotLanded:
        asked = {"repo_path": repo_path, "branch_type": "local"}
        return _found(branch_name in str(await server.direct_call_tool("git_branch", asked)))

    return {"git_add": sf.effect(in_doubt=sf.Overwrite()), "git_commit": _probe(was_committed),
            "git_create_branch": _probe(is_branched)}  # fmt: skip


def _sqlite_calls(_world: Path) -> list[Call]:
    return [
        Call("c0", "create_table", {"query": "CREATE TABLE orders (number TEXT, cents INTEGER)"}),
        Call("c1", "write_query", {"query": "INSERT INTO orders VALUES ('A-1', 500)"}),
        Call("c2", "write_query", {"query": "INSERT INTO orders VALUES ('A-2', 700)"}),
        Call("c3", "read_query", {"query": "SELECT * FROM orders"}, is_effect=False),
    ]


def _sqlite_state(world: Path) -> Any:
    if not (world / "shop.db").exists():
        return None
    with closing(sqlite3.connect(world / "shop.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        rows = connection.execute("SELECT * FROM orders ORDER BY 1, 2").fetchall() if tables else []
    return tables, rows


def _sqlite_landed(world: Path, call: Call) -> bool:
    tables, rows = _sqlite_state(world) or ([], [])
    number = call.arguments["query"].partition("'")[2].partition("'")[0]
    return bool(tables) if call.tool == "create_table" else number in dict(rows)


def _sqlite_probes(server: MCPToolset, _world: Path) -> Mapping[str, Declaration]:
    async def was_created(query: str) -> sf.Landed | sf.NotLanded:
        return _found("orders" in str(await server.direct_call_tool("list_tables", {})))

    async def was_written(query: str) -> sf.Landed | sf.NotLanded:
        number = query.partition("'")[2].partition("'")[0]
        rows = await server.direct_call_tool("read_query", {"query": f"SELECT * FROM orders WHERE number = '{number}'"})
        return _found(number in str(rows))

    return {"create_table": _probe(was_created), "write_query": _probe(was_written)}


def _theirs() -> list[Scenario]:
    node, python = "node_modules/.bin", "venv/bin"

    def folder(world: Path) -> None:
        (world / "files").mkdir(parents=True)

    def memory(world: Path) -> dict[str, str]:
        return {"MEMORY_FILE_PATH": str(world / "memory.jsonl")}

    table: list[tuple[Any, ...]] = [
        ("filesystem", lambda w: [f"{_installed(node)}/mcp-server-filesystem", str(w / "files")], _filesystem_calls,
         folder, _filesystem_state, _filesystem_landed, _filesystem_probes, lambda _world: {}),
        ("memory", lambda _w: [f"{_installed(node)}/mcp-server-memory"], _memory_calls,
         Path.mkdir, _memory_state, _memory_landed, _memory_probes, memory),
        ("git", lambda w: [f"{_installed(python)}/mcp-server-git", "-r", str(w / "repo")], _git_calls,
         _git_prepare, _git_state, _git_landed, _git_probes, lambda _world: {}),
        ("sqlite", lambda w: [f"{_installed(python)}/mcp-server-sqlite", "--db-path", str(w / "shop.db")], _sqlite_calls,
         Path.mkdir, _sqlite_state, _sqlite_landed, _sqlite_probes, lambda _world: {}),
    ]  # fmt: skip
    return [
        Scenario(name, manner, command, calls, prepare, state, landed, effects, environment)
        for name, command, calls, prepare, state, landed, probes, environment in table
        for manner, effects in (("nothing", lambda _server, _world: {}), ("declared", probes))
    ]


SCENARIOS = {one.title: one for one in (*_till(is_http=False), *_till(is_http=True), *_theirs())}
