"""Doctor: what can be said of a user's code by looking at it: each tool with its risk, what is missing, what to write.

`surefoot doctor MODULE` shows it. What holds: nothing of the user's is called, and nothing asked over a network.
"""

from surefoot.doctor.checks import CHECKS, of_module
from surefoot.doctor.found import Code, Tool, look
from surefoot.doctor.risk import ToolLine, lines
from surefoot.store.finding import Finding, Severity

__all__ = ["CHECKS", "Code", "Finding", "Severity", "Tool", "ToolLine", "lines", "look", "of_module"]
