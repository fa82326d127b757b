"""Skirts and trains: cloth that hangs from the waist in folds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, exp, pi, sin
from random import Random

from devstack.dress.belts import band
from devstack.dress.sheet import (
    CENTRE,
    HALF_WAIST,
    HEMS,
    WAIST,
    Point,
    Sheet,
    fill,
    grey,
    line,
    stroke,
)


@dataclass(frozen=True)
class Skirt:
    """Cloth hanging from the waist, `hem` pixels below the top edge, wider by `slope` a pixel.

    The hem is `dip` lower (or `rise` higher) in the middle than at the sides, and waves by
    `wave`; `hip` is how much wider it is below the waist, where it is `top` wide to each side.
    `depth` is how dark the folds are, `level` is added to every grey. `seed` places the folds.
    """

    hem: float
    slope: float
    hip: float = 30
    folds: int = 9
    wave: float = 7
    dip: float = 16
    rise: float = 0
    top: float = HALF_WAIST
    depth: float = 1
    level: int = 0
    seed: str = ""

    def half(self, y: float) -> float:
        """Half the width at a height."""
        below = y - WAIST
        return self.top + self.hip * (1 - exp(-max(below, 0) / 70)) + self.slope * below

    def valleys(self) -> list[float]:
        """Angles around the body, from −π/2 to π/2, where the cloth falls inward."""
        chance = Random(self.seed)
        return [
            -pi / 2 + pi * (k + 0.5 + chance.uniform(-0.22, 0.22)) / self.folds
            for k in range(self.folds)
        ]

    def hem_at(self, angle: float) -> float:
        """The hem's height at an angle: higher where the cloth falls inward."""
        wide = pi / self.folds / 2.6
        inward = sum(exp(-(((angle - at) / wide) ** 2)) for at in self.valleys())
        return (
            self.hem
            + self.dip * cos(angle)
            - self.rise * max(cos(angle), 0) ** 1.5
            + self.wave * (0.4 - inward) * (0.4 + 0.6 * cos(angle))
        )

    def at(self, angle: float, way: float) -> Point:
        """The point at an angle around the body, `way` from the waist (0) to the hem (1)."""
        y = WAIST + way * (self.hem_at(angle) - WAIST)
        return CENTRE + self.half(y) * sin(angle), y

    def outline(self) -> str:
        ways = [k / 30 for k in range(31)]
        hem = [pi / 2 - pi * k / 160 for k in range(1, 160)]
        return line(
            [
                *(self.at(-pi / 2, 1 - way) for way in ways),
                *(self.at(pi / 2, way) for way in ways),
                *(self.at(angle, 1) for angle in hem),
            ],
            close=True,
        )

    def wedge(self, angle: float, turn: float, start: float, end: float = 1.02) -> str:
        """Cloth between two angles that meet at `start` of the way down."""
        ways = [start + (end - start) * k / 14 for k in range(15)]

        def side(turned: float) -> list[Point]:
            spread = [turned * (way - start) / (end - start) for way in ways]
            return [self.at(angle + more, way) for more, way in zip(spread, ways, strict=True)]

        return line([*side(0), *reversed(side(turn))], close=True)


def draw_skirt(sheet: Sheet, skirt: Skirt, *, seam: bool = False) -> None:
    """A skirt with soft folds; `seam` down the middle for the back."""
    outline, wide, level = skirt.outline(), skirt.half(skirt.hem), skirt.level
    stops = [(0, 74), (0.13, 108), (0.34, 142), (0.52, 128), (0.8, 104), (1, 64)]
    paint = sheet.across(
        CENTRE - wide, CENTRE + wide, [(at, max(shade + level, 20)) for at, shade in stops]
    )
    sheet.add(fill(outline, paint))
    chance = Random(f"{skirt.seed} folds")
    dark, light, creases = [], [], []
    turn = pi / skirt.folds
    for angle in skirt.valleys():
        start = chance.choice((-0.02, 0.0, 0.04, 0.16, 0.3))
        strength = skirt.depth * chance.uniform(0.75, 1)
        dark.append(fill(skirt.wedge(angle, 0.5 * turn, start), grey(30), 0.5 * strength))
        dark.append(fill(skirt.wedge(angle, 0.2 * turn, start), grey(16), 0.4 * strength))
        light.append(fill(skirt.wedge(angle, -0.34 * turn, start), grey(215), 0.36 * strength))
        creases.append(fill(skirt.wedge(angle, 0.035 * turn, start), grey(24), 0.3 * strength))
    sheet.clip(outline, [*dark, *light], blur=max(3.0, wide / 48))
    sheet.clip(outline, creases, blur=0.8)
    finish_skirt(sheet, skirt, outline, seam=seam)


def finish_skirt(sheet: Sheet, skirt: Skirt, outline: str, *, seam: bool) -> None:
    """Shadow below the belt, a stitched hem, and the seam of a back."""
    hem = [skirt.at(pi / 2 - pi * k / 160, 1) for k in range(161)]
    stitches = line([(x, y - 11) for x, y in hem])
    parts = [stroke(line(hem), 225, 2.4, 0.22), stroke(stitches, 30, 1.1, 0.4, "5 3.4")]
    if seam:
        middle = line([(CENTRE, WAIST), (CENTRE, skirt.hem_at(0))])
        parts += [stroke(middle, 25, 1.5, 0.5), stroke(middle, 230, 1, 0.16)]
    sheet.clip(outline, parts)
    sheet.clip(outline, [fill(band(0, 30), grey(15), 0.55)], blur=7)


def draw_pleats(sheet: Sheet, skirt: Skirt, *, seam: bool = False) -> None:
    """A skirt of sharp pleats, each lit on its left and dark where the next one lies on it."""
    outline = skirt.outline()
    sheet.add(fill(outline, grey(104)))
    turn = pi / skirt.folds
    panels = []
    for k in range(skirt.folds):
        left = -pi / 2 + k * turn
        middle = left + turn / 2
        lit = round(36 * cos(middle + 0.45) - 26)
        ways = [step / 14 for step in range(15)]
        for part, shade in enumerate((162, 140, 124, 100, 62)):
            near, far = left + turn * part / 5, left + turn * (part + 1) / 5 + 0.004
            panel = line(
                [
                    *(skirt.at(near, way) for way in ways),
                    *(skirt.at(far, way) for way in reversed(ways)),
                ],
                close=True,
            )
            panels.append(fill(panel, grey(max(shade + lit, 20))))
        crease = line([skirt.at(left, way) for way in ways])
        panels.append(stroke(crease, 215, 1.2, 0.35))
    sheet.clip(outline, panels, blur=0.7)
    finish_skirt(sheet, skirt, outline, seam=seam)


def lining(sheet: Sheet, skirt: Skirt) -> None:
    """The inside of the far hem, seen below the near one."""
    far = replace(skirt, seed=f"{skirt.seed} far", dip=skirt.dip * 0.15)
    sheet.add(fill(far.outline(), grey(38)))


def simple(length: str, side: str) -> Skirt:
    slope = {"mini": 0.24, "knee": 0.2, "maxi": 0.165}[length]
    return Skirt(HEMS[length], slope, folds=8, seed=f"simple {side}")


def draw_base(sheet: Sheet, length: str, side: str) -> None:
    draw_skirt(sheet, simple(length, side), seam=side == "back")


def draw_pleated(sheet: Sheet, length: str, side: str, pleats: int = 16) -> None:
    slope = {"mini": 0.34, "knee": 0.27, "maxi": 0.2}[length]
    skirt = Skirt(HEMS[length], slope, hip=34, folds=pleats, wave=5, seed="pleats")
    draw_pleats(sheet, skirt, seam=side == "back")


def flared(length: str, side: str) -> Skirt:
    slope = {"mini": 0.6, "knee": 0.47, "maxi": 0.27}[length]
    return Skirt(HEMS[length], slope, 44, 7, 22, 26, depth=1.15, seed=f"flared {side}")


def draw_flared(sheet: Sheet, length: str, side: str) -> None:
    skirt = flared(length, side)
    lining(sheet, skirt)
    draw_skirt(sheet, skirt, seam=side == "back")


def _high_low(length: str, side: str) -> Skirt:
    slope = {"mini": 0.36, "knee": 0.3, "maxi": 0.22}[length]
    drop = {"mini": 60, "knee": 70, "maxi": 30}[length]
    rise = {"mini": 130, "knee": 210, "maxi": 330}[length]
    seed = f"high low {side}"
    if side == "front":
        return Skirt(HEMS[length], slope, 36, 7, 9, rise=rise, dip=0, seed=seed)
    return Skirt(HEMS[length], slope, 36, 7, 9, dip=drop, seed=seed)


def draw_high_low(sheet: Sheet, length: str, side: str) -> None:
    draw_skirt(sheet, _high_low(length, side), seam=side == "back")


def draw_high_low_inside(sheet: Sheet, length: str) -> None:
    """The back of a high-low skirt from the inside, behind the legs."""
    back = _high_low(length, "back")
    draw_skirt(sheet, replace(back, level=-44, depth=0.8))


def _train(*, wide: bool) -> Skirt:
    return Skirt(1150, 0.325 if wide else 0.25, 44, 9, 13, 24, seed="train")


def draw_train(sheet: Sheet, *, wide: bool) -> None:
    """The train from the front: it shows left, right and below."""
    draw_skirt(sheet, replace(_train(wide=wide), level=-26))


def draw_train_back(sheet: Sheet, *, wide: bool) -> None:
    """The train from the back: a panel over the skirt."""
    train = _train(wide=wide)
    panel = replace(train, top=34, hip=16, slope=train.slope * 0.9, level=12)
    below = flared("maxi", "back") if wide else simple("maxi", "back")
    sheet.clip(below.outline(), [fill(panel.outline(), grey(10), 0.75)], blur=8)
    draw_skirt(sheet, panel)
    for side in (-pi / 2, pi / 2):
        edge = line([panel.at(side, k / 30) for k in range(31)])
        sheet.clip(panel.outline(), [stroke(edge, 225, 5, 0.3)], blur=1)
