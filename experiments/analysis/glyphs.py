"""Names that users chose, as figures can draw them."""

from matplotlib.font_manager import FontProperties, findfont, get_font


def drawable(text: str) -> str:
    r"""Return a text for matplotlib: no formula, and no character that its font lacks.

    Such a character becomes its escape; the page shows it as it is.

    Example:
        >>> print(drawable("a$b$ \U0001f99c \u732b é"))
        a\$b\$ \U0001f99c \u732b é
    """
    glyphs = get_font(findfont(FontProperties())).get_charmap()
    return "".join(
        c if ord(c) in glyphs else c.encode("ascii", "backslashreplace").decode() for c in text
    ).replace("$", r"\$")
