"""Where the time of a boot went, as a picture: one self-contained SVG, a bar for each step, on the time since the kernel's start.

Rules: pure; nothing a guest says becomes markup; readable without colours (each bar has its name and time beside it, each group its word);
colours of Okabe and Ito, which people with colour blindness tell apart; a title and a description for screen readers.
Source: SVG 1.1, sections 5.4 (title, desc) and 9.2 (rect).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from coworkd.model.calls_boot import BootStep, BootTime

_COLOURS = {"kernel": "#0072b2", "initrd": "#56b4e9", "system": "#999999", "unit": "#e69f00", "coworkd": "#009e73"}
_FAILED = "#d55e00"
_ROW, _BAR, _LEFT, _SCALE_WIDTH, _RIGHT, _TOP, _FOOT = 22, 15, 250, 760, 90, 92, 34
_INK, _GRID = "#1a1a1a", "#d9d9d9"
_NAME_CHARACTERS = 36
_MOST_TICKS = 12


def compose_picture(boot: BootTime) -> str:
    """The SVG's text."""
    steps = sorted(boot.steps, key=lambda step: (step.start_s, -step.took_s))
    end_s = max([step.start_s + step.took_s for step in steps] + [boot.ready_s or 0.0, 0.1])
    tick_s = choose_tick(end_s)
    scale_s = math.ceil(end_s / tick_s) * tick_s
    width, height = _LEFT + _SCALE_WIDTH + _RIGHT, _TOP + _ROW * len(steps) + _FOOT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
            'aria-labelledby="title desc" font-family="sans-serif" font-size="12">',
            '<title id="title">Where the time of this boot went</title>',
            f'<desc id="desc">{escape(describe(boot, steps))}</desc>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            f'<text x="16" y="28" font-size="18" fill="{_INK}">{escape(headline(boot))}</text>',
            *_legend(steps),
            *_grid(scale_s, tick_s, height),
            *_ready_line(boot, scale_s, height),
            *(line for row, step in enumerate(steps) for line in _bar(step, row, scale_s)),
            "</svg>",
            "",
        ]
    )


def headline(boot: BootTime) -> str:
    """One line that says it all."""
    if boot.ready_s is None:
        return "coworkd is still coming up"
    return f"coworkd was ready {boot.ready_s:.2f} s after the kernel's start"


def describe(boot: BootTime, steps: Sequence[BootStep]) -> str:
    """The picture in words: the headline, and the longest steps."""
    longest = sorted(steps, key=lambda step: -step.took_s)[:5]
    said = "; ".join(f"{step.name} took {step.took_s:.2f} s from {step.start_s:.2f} s on" for step in longest)
    return f"{headline(boot)}. A bar for each of {len(steps)} steps, in the order they began. The longest: {said}."


def choose_tick(end_s: float) -> float:
    """The distance of the lines of the grid: 1, 2 or 5 times a power of ten, so that there are at most a dozen."""
    power = 10.0 ** math.floor(math.log10(end_s / _MOST_TICKS))
    return next(power * step for step in (1, 2, 5, 10) if end_s / (power * step) <= _MOST_TICKS)


def _x(seconds: float, scale_s: float) -> float:
    return _LEFT + _SCALE_WIDTH * seconds / scale_s


def _legend(steps: Sequence[BootStep]) -> list[str]:
    lines, x = [], 16
    for group, colour in _COLOURS.items():
        if any(step.group == group for step in steps):
            lines.append(f'<rect x="{x}" y="44" width="12" height="12" fill="{colour}"/>')
            lines.append(f'<text x="{x + 18}" y="54" fill="{_INK}">{group}</text>')
            x += 36 + 8 * len(group)
    return lines


def _grid(scale_s: float, tick_s: float, height: int) -> list[str]:
    lines = []
    for number in range(round(scale_s / tick_s) + 1):
        x = _x(number * tick_s, scale_s)
        lines.append(f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - _FOOT}" stroke="{_GRID}"/>')
        lines.append(
            f'<text x="{x:.1f}" y="{_TOP - 14}" text-anchor="middle" fill="{_INK}">{number * tick_s:g} s</text>'
        )
    return lines


def _ready_line(boot: BootTime, scale_s: float, height: int) -> list[str]:
    if boot.ready_s is None:
        return []
    x, foot = _x(boot.ready_s, scale_s), height - _FOOT
    return [
        f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{foot}" stroke="{_INK}" stroke-dasharray="4 3"/>',
        f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle" fill="{_INK}">ready</text>',
    ]


def _bar(step: BootStep, row: int, scale_s: float) -> list[str]:
    y = _TOP + _ROW * row
    x, width = _x(step.start_s, scale_s), max(1.5, _SCALE_WIDTH * step.took_s / scale_s)
    name = step.name if len(step.name) <= _NAME_CHARACTERS else f"{step.name[: _NAME_CHARACTERS - 1]}…"
    colour = _FAILED if step.error is not None else _COLOURS.get(step.group, _GRID)
    failed = "" if step.error is None else " failed"
    whole = escape(f"{step.group}: {step.name}, from {step.start_s:.3f} s on, {step.took_s:.3f} s{failed}")
    middle = y + _BAR - 3
    return [
        f'<g><title>{whole}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end" fill="{_INK}">{escape(name)}</text>',
        f'<text x="{x + width + 5:.1f}" y="{middle}" fill="{_INK}">{step.took_s:.2f} s{failed}</text></g>',
    ]
