"""Makes `bench` importable, which is not installed: it is measured from the repository only."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))
