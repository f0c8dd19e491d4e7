"""Draws a drill's timeline as SVG: a lane for the fault and for each who noticed it."""

from __future__ import annotations

import html
import math

from chaos.engine.result import Result

WIDTH, LEFT, RIGHT, TOP, LANE = 900, 150, 30, 26, 46

LANES = (
    # title, colour, from mark, to mark
    ("Fault in force", "--fault", "injected", "undone"),
    ("Agent sees it", "--agent", "seen", "healthy"),
    ("Alert fires", "--rule", "firing", "quiet"),
    ("People know", "--people", "paged", "told"),
)


def draw(result: Result) -> str:
    """An SVG of the lanes whose beginning was seen; a bar without a seen end runs out dashed."""
    marks = {**result.timeline, **result.details}
    end = max(marks.values(), default=0.0)
    step = _step(end)
    span = max(step, math.ceil(end / step) * step)
    height = TOP + LANE * len(LANES) + 30

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / span

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Timeline of the drill in seconds">']
    for tick in range(round(span / step) + 1):
        at = x(tick * step)
        parts.append(
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{height - 24}"/>'
            f'<text class="soft" x="{at:.1f}" y="{height - 6}" text-anchor="middle">{tick * step:g} s</text>'
        )
    for row, (title, colour, begin, finish) in enumerate(LANES):
        y = TOP + row * LANE
        parts.append(f'<text x="0" y="{y + 21}">{html.escape(title)}</text>')
        if begin not in marks:
            parts.append(f'<text class="soft" x="{LEFT + 6}" y="{y + 21}">not seen</text>')
            continue
        start, stop, open_ = x(marks[begin]), x(marks.get(finish, span)), finish not in marks
        dash = f' stroke="var({colour})" stroke-dasharray="4 3" fill-opacity=".35"' if open_ else ""
        label = f"{marks[begin]:.2f} s" + ("" if open_ else f" to {marks[finish]:.2f} s")
        parts.append(
            f'<rect x="{start:.1f}" y="{y + 4}" width="{max(3.0, stop - start):.1f}" height="26" rx="6" '
            f'fill="var({colour})"{dash}><title>{html.escape(title)}: {label}</title></rect>'
            + _label(label, start, stop, y + 21)
        )
    return "".join(parts) + "</svg>"


def _step(end: float) -> float:
    """A round distance between grid lines that gives at most ten of them."""
    return next((s for s in (0.5, 1, 2, 5, 10, 20, 30, 60) if end / s <= 10), 120.0)


def _label(text: str, start: float, stop: float, y: float) -> str:
    """The text inside its bar if it fits, else beside it."""
    room = 7.5 * len(text) + 16
    if stop - start >= room:
        return f'<text x="{start + 8:.1f}" y="{y}" style="fill:#fff;font-weight:600">{text}</text>'
    if stop + room <= WIDTH:
        return f'<text x="{stop + 8:.1f}" y="{y}">{text}</text>'
    return f'<text x="{start - 8:.1f}" y="{y}" text-anchor="end">{text}</text>'
