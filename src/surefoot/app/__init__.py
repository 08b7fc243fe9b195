"""The composition root: the only place that knows every room and wires them together."""

from surefoot.app.face import NotOpen, Surefoot, configure
from surefoot.app.formats import MIGRATIONS

__all__ = ["MIGRATIONS", "NotOpen", "Surefoot", "configure"]
