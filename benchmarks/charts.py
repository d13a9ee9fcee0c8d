"""Draws the benchmark's charts as SVG, readable on a light and on a dark page.

Times differ by a factor of a hundred, so their scale is logarithmic; a bar has no honest length on such a scale, so
medians are dots, with a line from the fastest to the slowest run. Memory is drawn as bars from zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.results import Spread

WIDTH = 880
LABELS = 210
ROW = 26
TOP = 74
BOTTOM = 34
GAP = 14
# The room for a figure behind the rightmost dot or bar.
FIGURE = 52

STYLE = """
  svg { --page: #ffffff; --frame: #d0d7de; --ink: #1f2328; --soft: #59636e; --grid: #e6eaee;
        --job: #cf4a00; --floor: #6e7781; --peer: #2f6fb3; font-family: system-ui, -apple-system, "Segoe UI",
        "DejaVu Sans", sans-serif; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #0d1117; --frame: #3d444d; --ink: #f0f6fc; --soft: #9198a1; --grid: #262c34;
          --job: #ff8a4c; --floor: #9198a1; --peer: #6cb0f5; }
  }
  .page { fill: var(--page); stroke: var(--frame); }
  .grid { stroke: var(--grid); }
  .title { fill: var(--ink); font-size: 15px; font-weight: 600; }
  .panel { fill: var(--ink); font-size: 12.5px; font-weight: 600; }
  .name { fill: var(--ink); font-size: 12.5px; paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
  .note, .tick { fill: var(--soft); font-size: 11px; }
  .figure { fill: var(--ink); font-size: 11px; }
  .strong { font-weight: 700; }
  .end { text-anchor: end; }
  .middle { text-anchor: middle; }
  .whisker { stroke-width: 2; }
  .dot.job, .bar.job { fill: var(--job); } .dot.floor, .bar.floor { fill: var(--floor); }
  .dot.peer, .bar.peer { fill: var(--peer); }
  .whisker.job, .line.job { stroke: var(--job); } .whisker.floor, .line.floor { stroke: var(--floor); }
  .whisker.peer, .line.peer { stroke: var(--peer); }
  .line { fill: none; stroke-width: 2; }
"""


@dataclass(frozen=True)
class Series:
    """One candidate's row or line: its kind (job, floor or peer) gives the colour."""

    title: str
    kind: str
    values: Sequence[Spread | None]


def seconds(value: float) -> str:
    """Write a time with as many digits as mean something."""
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def picture(height: float, title: str, note: str, parts: Sequence[str]) -> str:
    """Put a chart together."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" aria-label="{escape(title)}">',
            f"<style>{STYLE}</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" class="page"/>',
            text(18, 27, title, "title"),
            text(18, 45, note, "note"),
            *parts,
            "</svg>\n",
        ]
    )


@dataclass(frozen=True)
class LogScale:
    """Maps a value to a position; its ends are powers of ten times 1, 2 or 5."""

    low: float
    high: float
    left: float
    right: float

    def at(self, value: float) -> float:
        """Return the position of a value."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.left + share * (self.right - self.left)

    def ticks(self) -> list[float]:
        """Return the values to draw grid lines at: powers of ten, and between them where there are too few."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        powers = [value for decade in decades if self.low * 0.999 <= (value := 10.0**decade) <= self.high * 1.001]
        if len(powers) > 1:
            return powers
        between = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        return [value for value in between if self.low * 0.999 <= value <= self.high * 1.001]


def bounds(values: Sequence[Spread]) -> tuple[float, float]:
    """Return round numbers around all values."""
    low, high = min(value.low for value in values), max(value.high for value in values)
    steps = [step * 10.0**decade for decade in range(-4, 12) for step in (1, 2, 5)]
    return max(step for step in steps if step <= low * 0.95), min(step for step in steps if step >= high)


def dots(title: str, note: str, panels: Sequence[str], series: Sequence[Series]) -> str:
    """Draw one row per candidate and one panel per phase, times on one logarithmic scale."""
    low, high = bounds([value for one in series for value in one.values if value])
    width = (WIDTH - LABELS - 18 - GAP * (len(panels) - 1)) / len(panels)
    bottom = TOP + ROW * len(series)
    parts = [text(18, TOP + ROW * row + 17, one.title, name_style(one)) for row, one in enumerate(series)]
    for column, panel in enumerate(panels):
        left = LABELS + column * (width + GAP)
        scale = LogScale(low, high, left + 6, left + width - FIGURE)
        parts.append(text(left, TOP - 8, panel, "panel"))
        for tick in scale.ticks():
            parts.append(line(scale.at(tick), TOP, scale.at(tick), bottom, "grid"))
            parts.append(text(scale.at(tick), bottom + 16, f"{tick:g} s", "tick middle"))
        for row, one in enumerate(series):
            parts += dot(scale, TOP + ROW * row + 13, one, one.values[column])
    return picture(bottom + BOTTOM, title, note, parts)


def name_style(series: Series) -> str:
    return "name strong" if series.kind == "job" else "name"


def dot(scale: LogScale, y: float, series: Series, value: Spread | None) -> list[str]:
    """Draw a median with its range and figure."""
    if value is None:
        return [text(scale.left, y + 4, "not measured", "note")]
    right = max(scale.at(value.high), scale.at(value.median) + 5)
    return [
        line(scale.at(value.low), y, scale.at(value.high), y, f"whisker {series.kind}"),
        f'<circle cx="{scale.at(value.median):.1f}" cy="{y:.1f}" r="5" class="dot {series.kind}"/>',
        text(right + 5, y + 4, seconds(value.median), "figure strong" if series.kind == "job" else "figure"),
    ]


def bars(title: str, note: str, unit: str, series: Sequence[Series]) -> str:
    """Draw one bar per candidate, from zero."""
    high = max(one.values[0].high for one in series if one.values[0])
    left, right = LABELS, WIDTH - 18 - FIGURE - 20
    parts = []
    for row, one in enumerate(series):
        y, value = TOP - 14 + ROW * row, one.values[0]
        parts.append(text(18, y + 17, one.title, name_style(one)))
        if value:
            length = (right - left) * value.median / high
            parts.append(
                f'<rect x="{left}" y="{y + 5}" width="{length:.1f}" height="16" rx="2" class="bar {one.kind}"/>'
            )
            parts.append(text(left + length + 6, y + 17, f"{value.median:,.0f} {unit}", "figure"))
    return picture(TOP - 14 + ROW * len(series) + 16, title, note, parts)


def growth(title: str, note: str, sizes: Sequence[int], series: Sequence[Series]) -> str:
    """Draw time against size, both logarithmic: a straight line at 45 degrees is linear growth."""
    height, right = 430, WIDTH - 240
    low, high = bounds([value for one in series for value in one.values if value])
    across = LogScale(sizes[0], sizes[-1], 70, right)
    up = LogScale(low, high, height - 44, TOP)
    parts = []
    for size in sizes:
        parts.append(line(across.at(size), TOP, across.at(size), height - 44, "grid"))
        parts.append(text(across.at(size), height - 24, f"{size:,}", "tick middle"))
    for tick in up.ticks():
        parts.append(line(70, up.at(tick), right, up.at(tick), "grid"))
        parts.append(text(62, up.at(tick) + 4, f"{tick:g} s", "tick end"))
    ends = []
    for one in series:
        points = [(across.at(s), up.at(v.median)) for s, v in zip(sizes, one.values, strict=True) if v]
        if points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" class="line {one.kind}"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="dot {one.kind}"/>' for x, y in points]
            ends.append((points[-1][1], points[-1][0], one))
    below: dict[float, float] = {}
    for y, x, one in sorted(ends, key=lambda end: end[0]):
        # Labels of lines that end close together move down, never over each other.
        below[x] = max(y + 4, below.get(x, 0) + 15)
        last = next(value for value in reversed(one.values) if value)
        parts.append(text(x + 10, below[x], f"{one.title}  {seconds(last.median)}", name_style(one)))
    return picture(height, title, note, parts)
