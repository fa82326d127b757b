"""Text that came from outside, made safe to show to a person."""


def printable(text: object, limit: int | None = None) -> str:
    """`text` with every control character and lone surrogate written as an escape.

    Keys and library messages may hold anything; a NUL would be refused by PostgreSQL and a
    line break would forge a log line. Cut to `limit` characters, the cut marked with `…`.
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )
    if limit is not None and len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown
