"""Flutter sleeves of thin cloth."""

from __future__ import annotations

from dataclasses import dataclass

from devstack.dress.sheet import CENTRE, Point, Sheet, fill, grey, stroke


@dataclass(frozen=True)
class Sleeve:
    """The right sleeve around x = 0: its outline, and where its folds start and end."""

    outline: str
    start: Point
    ends: tuple[Point, ...]


SET_IN = Sleeve(
    "M 100 110 C 142 112 186 150 204 222 C 208 242 202 250 190 246 C 180 262 166 262 158 250"
    " C 146 262 132 258 124 244 C 118 240 112 232 108 222 C 98 190 98 150 100 110 Z",
    (104, 116),
    ((186, 240), (158, 246), (128, 240), (204, 214)),
)
OFF_SHOULDER = Sleeve(
    "M 98 208 C 124 184 160 178 184 196 C 206 226 214 272 212 304 C 202 316 190 312 182 302"
    " C 172 316 156 314 150 300 C 138 310 124 304 116 290 C 112 266 110 236 98 208 Z",
    (138, 180),
    ((206, 304), (182, 300), (150, 298), (122, 288)),
)
COLD_SHOULDER = Sleeve(
    "M 98 210 C 120 192 150 186 172 200 C 190 222 198 254 196 280 C 186 290 176 288 168 278"
    " C 160 290 146 288 140 276 C 130 284 120 280 114 270 C 110 252 108 232 98 210 Z",
    (132, 186),
    ((190, 280), (168, 276), (140, 274), (118, 266)),
)


def draw_sleeves(sheet: Sheet, sleeve: Sleeve) -> None:
    """Two flutter sleeves of thin cloth: what is behind them shows through a little."""
    for left in (False, True):
        own = Sheet(ids=sheet.ids)
        stops = [(0, 84), (0.3, 150), (0.65, 122), (1, 72)]
        if left:
            stops = [(0, 70), (0.35, 116), (0.65, 164), (1, 104)]
        own.add(fill(sleeve.outline, own.across(96, 212, stops), 0.9))
        x, y = sleeve.start
        folds = []
        for ex, ey in sleeve.ends:
            folds.append(fill(f"M{x} {y} L{ex} {ey + 14} L{ex - 13} {ey + 16}Z", grey(12), 0.5))
            folds.append(fill(f"M{x} {y} L{ex + 12} {ey + 12} L{ex} {ey + 14}Z", grey(235), 0.28))
        own.clip(sleeve.outline, folds, blur=2.6)
        own.clip(sleeve.outline, [stroke(sleeve.outline, 220, 4, 0.3)])
        text = "".join(own.cloth)
        sheet.ids = own.ids
        turned = f'<g transform="scale(-1 1)">{text}</g>' if left else text
        sheet.add(f'<g transform="translate({CENTRE} 0)">{turned}</g>')
