"""Makes the sample algorithm and the scripted node importable, also when pytest is started by its own name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
