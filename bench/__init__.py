"""Benchmarks: what the workflows cost, beside the tools a person would otherwise use."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for _folder in ("plugins", "include"):
    if str(ROOT / _folder) not in sys.path:
        sys.path.insert(0, str(ROOT / _folder))
