"""The demo's directory: what is in it, and what its processes must agree on.

Always holds: only files that a demo has made are removed, and only from a directory that a demo has marked as its own.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from surefoot.problem import SurefootError

DEFAULT = Path("surefoot-demo")
_SETTING = "demo.json"


class NotOurs(SurefootError):
    """The directory holds something that no demo has put there. Nothing was touched."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the worker processes are told.

    Attributes:
        seed: Of faults, kills and the local model's choices.
        model: As typed after `--model`.
        model_url: Where the local model answers; None for other models.
        shop_url: Where the shop is.
        room: How many runs one worker takes at a time.
    """

    seed: int
    model: str
    model_url: str | None
    shop_url: str
    room: int


class Place:
    """One demo's directory.

    Args:
        path: Relative paths stay relative, so that the commands it prints are short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        """The store of runs and effects."""
        return f"sqlite:///{self.path / 'agents.db'}"

    @property
    def shop_db(self) -> Path:
        """The shop's own database: the one Surefoot works with."""
        return self.path / "shop.db"

    @property
    def plain_shop_db(self) -> Path:
        """The database of the second shop, the plain loop's."""
        return self.path / "plain-shop.db"

    @property
    def orders(self) -> Path:
        """The orders that both shops begin with."""
        return self.path / "orders.json"

    @property
    def decisions(self) -> Path:
        """What the clerk decided, for the plain loop."""
        return self.path / "decisions.json"

    @property
    def notes(self) -> Path:
        """What the plain loop notes of itself."""
        return self.path / "plain-notes.jsonl"

    @property
    def log(self) -> Path:
        """What the demo's processes say on stderr."""
        return self.path / "processes.log"

    def clear(self) -> None:
        """Make the directory, empty: an earlier demo's is removed.

        Raises:
            NotOurs: There is something else.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            if not (self.path / _SETTING).is_file():
                raise NotOurs(f"{self.path} is there and is no demo's", hint="start in another directory, or move it")
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _SETTING).write_text("{}", encoding="utf-8")

    def write(self, setting: Setting) -> None:
        """Write down what the processes must agree on."""
        (self.path / _SETTING).write_text(json.dumps(asdict(setting), indent=1), encoding="utf-8")

    def setting(self) -> Setting:
        """Read it."""
        return Setting(**json.loads((self.path / _SETTING).read_text(encoding="utf-8")))
