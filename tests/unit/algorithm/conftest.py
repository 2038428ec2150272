"""Makes the sample algorithm and the scripted node importable, as in an image's working directory."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
