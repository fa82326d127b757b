"""Operators, hooks and links: what Airflow must know of the image workflows.

Airflow puts `plugins/` and `dags/` on `sys.path`; `include/`, which lies beside them, is ours to
add. It is done here because everything that needs it imports this package first.
"""

import sys
from pathlib import Path

_INCLUDE = str(Path(__file__).resolve().parents[2] / "include")
if _INCLUDE not in sys.path:
    sys.path.insert(0, _INCLUDE)
