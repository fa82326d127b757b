"""The sample dress: what draws each layer of the style `if-dr1001`, by base name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from devstack.dress.belts import draw_belt, draw_bow, draw_cord
from devstack.dress.bodices import BODICES, draw_bodice
from devstack.dress.sheet import HEMS, Sheet
from devstack.dress.skirts import (
    draw_base,
    draw_flared,
    draw_high_low,
    draw_high_low_inside,
    draw_pleated,
    draw_train,
    draw_train_back,
)
from devstack.dress.sleeves import COLD_SHOULDER, OFF_SHOULDER, SET_IN, draw_sleeves

SIDES = ("front", "back")
SKIRTS = {"base": draw_base, "b2": draw_pleated, "b3": draw_flared, "b4": draw_high_low}
SLEEVES = {"t20": SET_IN, "t20_for_t2": OFF_SHOULDER, "t20_for_t10": COLD_SHOULDER}
TRAINS = {"a1": False, "a1_for_b3": True}

DRAWINGS: dict[str, Callable[[Sheet], None]] = {
    "base_belt_front": draw_belt,
    "base_belt_back": draw_belt,
    "base_belt_infront_front": partial(draw_cord, clasp=True),
    "base_belt_infront_back": partial(draw_cord, clasp=False),
    "a3_belt_back": partial(draw_bow, tails=205),
    "a3_for_a1_belt_back": partial(draw_bow, tails=110),
    **{
        f"{code}_{length}_bottom_{side}": partial(draw, length=length, side=side)
        for code, draw in SKIRTS.items()
        for length in HEMS
        for side in SIDES
    },
    **{
        f"b4_{length}_behind_front": partial(draw_high_low_inside, length=length) for length in HEMS
    },
    **{
        f"{code}_maxi_behind_front": partial(draw_train, wide=wide) for code, wide in TRAINS.items()
    },
    **{
        f"{code}_maxi_behindbelt_back": partial(draw_train_back, wide=wide)
        for code, wide in TRAINS.items()
    },
    **{
        f"{name}_neckline_{side}": partial(draw_bodice, name=name, side=side)
        for name, side in BODICES
    },
    **{
        f"{name}_infront_{side}": partial(draw_sleeves, sleeve=sleeve)
        for name, sleeve in SLEEVES.items()
        for side in SIDES
    },
}
"""Base name of a layer → what draws it on an empty sheet."""
