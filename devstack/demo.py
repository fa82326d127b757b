"""Every workflow on samples, through real Airflow, held against what must come out."""

from __future__ import annotations

import shutil
from time import monotonic

from devstack.demo_events import events
from devstack.demo_ez import ez
from devstack.demo_pyramids import pyramids
from devstack.demo_renders import renders
from devstack.demo_stores import stores
from devstack.layout import Layout, State


def demo(layout: Layout, state: State, *, fresh: bool) -> bool:
    """Run the demo on a running stack, print the results and save them to build/demo/.

    On a stack that is not `fresh` something of an earlier demo may be there.

    Returns:
        Whether every outcome is as expected.
    """
    start = monotonic()
    target = layout.build / "demo"
    shutil.rmtree(target, ignore_errors=True)
    right = pyramids(layout, state, target / "pyramid_tiff", fresh=fresh)
    right = stores(layout, state, target / "stores") and right
    right = ez(layout, state, target / "ez") and right
    right = renders(layout, state, target / "renders") and right
    right = events(layout, state, target / "events") and right
    took = f"{monotonic() - start:.0f} s"
    print(f"\nAs expected, after {took}." if right else f"\nNOT as expected, after {took}.")
    print(f"Pictures, reports, outcomes, lists and task logs: {target}")
    return right
