"""Lets these tests find the stand-in chat server of the cleaning tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "clean"))
