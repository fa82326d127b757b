"""Bodices: one for each neckline, around x = 0."""

from __future__ import annotations

from dataclasses import dataclass

from devstack.dress.sheet import CENTRE, Sheet, fill, grey, stroke

SIDE = "C 121 262 106 310 86 356 Q 0 373 -86 356 C -106 310 -121 262"
"""From the right underarm down, along the waist, and up to the left one."""


@dataclass(frozen=True)
class Bodice:
    """Path data around x = 0: the cloth's outline, its upper edge, and the far side's inside."""

    outline: str
    edge: str
    inside: str = ""
    straps: str = ""


def _tank(depth: float, bend: float, inside: float = 0) -> Bodice:
    """Broad straps; the neckline is `depth` down and `bend` (0 a V, 1 a scoop) round."""
    right = f"C {62 - 34 * (1 - bend):.0f} {depth - 40} {36 * bend:.0f} {depth} 0 {depth}"
    left = f"C {-36 * bend:.0f} {depth} {-62 + 34 * (1 - bend):.0f} {depth - 40} -70 104"
    edge = f"M 70 104 {right} {left}"
    outline = (
        f"{edge} L -112 115 C -96 170 -100 214 -116 236 C -121 262 -106 310 -86 356"
        " Q 0 373 86 356 C 106 310 121 262 116 236 C 100 214 96 170 112 115 Z"
    )
    hidden = ""
    if inside:
        hidden = f"M -70 104 Q 0 {inside} 70 104 {right} {left} Z"
    return Bodice(outline, edge, hidden)


def _strapless(top: str, inside: str = "", straps: str = "") -> Bodice:
    """`top` runs from the left underarm to the right one."""
    edge = f"M -115 232 {top}"
    return Bodice(f"{edge} {SIDE} -115 232 Z", edge, inside, straps)


SWEETHEART = (
    "C -98 206 -84 184 -56 186 C -30 188 -12 206 0 226"
    " C 12 206 30 188 56 186 C 84 184 98 206 115 232"
)
SCOOPED = "C -102 212 -88 190 -70 190 Q 0 236 70 190 C 88 190 102 212 115 232"
PLUNGED = "C -102 212 -88 188 -72 184 Q -26 232 0 268 Q 26 232 72 184 C 88 188 102 212 115 232"
STRAIGHT = "C -96 218 -70 212 0 216 C 70 212 96 218 115 232"
LOW = "C -96 226 -70 244 0 256 C 70 244 96 226 115 232"
THIN = "M -72 192 C -80 160 -82 130 -84 106 M 72 192 C 80 160 82 130 84 106"
CROSSED = "M -76 236 C -50 190 30 140 80 106 M 76 236 C 50 190 -30 140 -80 106"
HALTER_EDGE = "M -42 86 C -22 104 22 104 42 86"
HALTER = Bodice(
    f"{HALTER_EDGE} L 66 92 C 70 160 84 214 116 236 {SIDE} -116 236 C -84 214 -70 160 -66 92 Z",
    HALTER_EDGE,
    "M -42 86 Q 0 70 42 86 C 22 104 -22 104 -42 86 Z",
)

BODICES = {
    ("base", "front"): _tank(196, 1, inside=150),
    ("base", "back"): _tank(140, 1),
    ("t1", "front"): _tank(268, 0.12, inside=140),
    ("t1", "back"): _tank(196, 0.12),
    ("t2", "front"): _strapless(SWEETHEART, "M -115 232 Q 0 186 115 232 L 0 250 Z"),
    ("t2", "back"): _strapless(STRAIGHT),
    ("t3", "front"): HALTER,
    ("t3", "back"): _strapless(LOW),
    ("t10", "front"): _strapless(SCOOPED, straps=THIN),
    ("t10", "back"): _strapless(STRAIGHT, straps=THIN.replace("192", "216")),
    ("t10_for_t1", "front"): _strapless(
        PLUNGED, "M -110 228 Q 0 208 110 228 L 0 300 Z", straps=THIN
    ),
    ("t10_for_t1", "back"): _strapless(LOW, straps=CROSSED),
    ("t10_for_t2", "front"): _strapless(
        SWEETHEART, "M -115 232 Q 0 186 115 232 L 0 250 Z", straps=THIN
    ),
    ("t10_for_t2", "back"): _strapless(STRAIGHT, straps=THIN.replace("192", "216")),
}


def draw_bodice(sheet: Sheet, name: str, side: str) -> None:
    """Inside, straps, cloth, bust and seams of one neckline."""
    bodice = BODICES[name, side]
    sheet.add(f'<g transform="translate({CENTRE} 0)">')
    if side == "back":
        far_side = sheet.down(90, 260, [(0, 104), (0.5, 74), (1, 44)])
        sheet.add(fill(BODICES[name, "front"].outline, far_side))
    if bodice.inside:
        sheet.add(fill(bodice.inside, sheet.down(90, 260, [(0, 92), (0.5, 56), (1, 24)])))
    if bodice.straps:
        sheet.add(stroke(bodice.straps, 62, 9) + stroke(bodice.straps, 124, 6.4))
        sheet.add(stroke(bodice.straps, 190, 1.6, 0.7))
    stops = [(0, 62), (0.14, 104), (0.36, 146), (0.54, 130), (0.8, 104), (1, 54)]
    sheet.add(fill(bodice.outline, sheet.across(-120, 120, stops)))
    draw_form(sheet, bodice, side)
    sheet.clip(
        bodice.outline,
        [stroke(bodice.edge, 40, 7, 0.5), stroke(bodice.edge, 205, 4.4, 0.42)],
    )
    if (name, side) == ("t3", "back"):
        draw_halter_band(sheet)
    sheet.add("</g>")


def draw_form(sheet: Sheet, bodice: Bodice, side: str) -> None:
    """The body below the cloth: bust and princess seams, or shoulder blades and a zip."""
    seams = ["M -64 200 C -72 250 -62 310 -46 366", "M 64 200 C 72 250 62 310 46 366"]
    if side == "front":
        soft = [
            '<ellipse cx="-52" cy="232" rx="30" ry="30" fill="#fff" fill-opacity="0.22"/>',
            '<ellipse cx="46" cy="232" rx="28" ry="28" fill="#fff" fill-opacity="0.15"/>',
            fill("M -92 262 Q -52 300 -8 262 Q -52 282 -92 262Z", grey(10), 0.55),
            fill("M 92 262 Q 52 300 8 262 Q 52 282 92 262Z", grey(10), 0.6),
            fill("M -7 214 Q 0 262 -5 300 L 6 300 Q 3 262 8 214Z", grey(10), 0.3),
            fill("M -90 330 Q 0 354 90 330 L 90 370 L -90 370Z", grey(10), 0.3),
        ]
    else:
        soft = [
            '<ellipse cx="-46" cy="200" rx="26" ry="44" fill="#fff" fill-opacity="0.18"/>',
            '<ellipse cx="42" cy="200" rx="24" ry="42" fill="#fff" fill-opacity="0.12"/>',
            fill("M -9 130 L 9 130 L 7 362 L -7 362Z", grey(10), 0.4),
            fill("M -90 326 Q 0 352 90 326 L 90 370 L -90 370Z", grey(10), 0.3),
        ]
        seams += ["M 0 100 L 0 366"]
    sheet.clip(bodice.outline, soft, blur=9)
    sheet.clip(bodice.outline, [stroke(seam, 24, 1.5, 0.5) for seam in seams])
    lit = [f'<g transform="translate(1.6 0)">{stroke(seam, 230, 1, 0.22)}</g>' for seam in seams]
    sheet.clip(bodice.outline, lit)


def draw_halter_band(sheet: Sheet) -> None:
    band = "M -66 92 C -46 74 46 74 66 92 L 58 108 C 40 94 -40 94 -58 108 Z"
    sheet.add(fill(band, sheet.across(-66, 66, [(0, 66), (0.35, 160), (0.6, 122), (1, 60)])))
    sheet.add(stroke(band, 30, 1, 0.35))
    sheet.trim.append(
        f'<circle cx="{CENTRE}" cy="87" r="5.4" fill="#f3eee8" stroke="#9c8f84" stroke-width="1"/>'
    )
