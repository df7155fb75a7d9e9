"""Pieces of SVG."""

STYLE = 'font-family="sans-serif" font-size="12" fill="#222"'


def escaped(text: str) -> str:
    """Write a text for an attribute or an element."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def words(x: float, y: float, text: str, more: str = "") -> str:
    """Put a text at a place; `more`: further attributes."""
    return f'<text x="{x:.0f}" y="{y:.0f}"{f" {more}" if more else ""}>{escaped(text)}</text>'


def box(x: float, y: float, width: float, height: float, more: str) -> str:
    """Draw a rectangle; `more`: its fill and other attributes."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {more}/>'


def drawing(label: str, width: float, height: float, parts: list[str]) -> str:
    """Join parts to a drawing of its own, whose `label` says what it shows."""
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg role="img" aria-label="{escaped(label)}" {size} {STYLE}>{"".join(parts)}</svg>'
