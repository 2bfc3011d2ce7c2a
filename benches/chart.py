"""The figures as a picture: two bars for each case, an SVG without scripts or fonts of its own."""

import statistics
import textwrap
from xml.sax.saxutils import escape

WIDTH, LABEL, BAR, GAP = 760, 215, 14, 10
COLOURS = {"rps_ratio": "#2563eb", "cpu_ratio": "#d97706"}
NAMES = {"rps_ratio": "requests per second", "cpu_ratio": "CPU per request, proxy and nodes"}


def draw(runs, bare, caption):
    """Ratios to `bare` as bars; `runs` as compare.py has them."""
    rows = []
    for (target, command, pipeline), measured in runs.items():
        if target == bare:
            continue
        values = {}
        for field in COLOURS:
            known = [run[field] for run in measured if run[field] is not None]
            values[field] = statistics.median(known) if known else None
        rows.append((f"{target}: {command.upper()}, pipeline {pipeline}", values))
    most = max([1.0] + [value for _, values in rows for value in values.values() if value])
    scale = (WIDTH - LABEL - 60) / most
    row_height = 2 * BAR + GAP
    below = textwrap.wrap(caption, 150)
    height = 60 + len(rows) * row_height + 20 + 12 * len(below)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="10" y="20" font-size="14">Compared with bare Redis (the line at 1)</text>',
    ]
    for place, (field, colour) in enumerate(COLOURS.items()):
        x = 10 + place * 200
        parts.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="41">{escape(NAMES[field])}</text>')
    for number, (name, values) in enumerate(rows):
        y = 60 + number * row_height
        parts.append(f'<text x="10" y="{y + BAR + 4}">{escape(name)}</text>')
        for place, (field, colour) in enumerate(COLOURS.items()):
            value, top = values[field], y + place * BAR
            if value is None:
                continue
            width = value * scale
            parts.append(
                f'<rect x="{LABEL}" y="{top}" width="{width:.1f}" height="{BAR - 2}" '
                f'fill="{colour}"/>'
            )
            parts.append(f'<text x="{LABEL + width + 5:.1f}" y="{top + 10}">{value:.2f}</text>')
    line = LABEL + scale
    bottom = 60 + len(rows) * row_height - GAP / 2
    parts.append(
        f'<line x1="{line:.1f}" y1="55" x2="{line:.1f}" y2="{bottom}" stroke="#111827"/>'
    )
    for number, text in enumerate(below):
        y = height - 8 - 12 * (len(below) - 1 - number)
        parts.append(f'<text x="10" y="{y}" font-size="9">{escape(text)}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
