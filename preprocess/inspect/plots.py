"""Plots of a page as SVG, without a script and without a library: a density of angles, and bars."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy import ndarray

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 270, 270, 44, 34  # of the drawing area, and its margins


def nice_reach(values: ndarray) -> float:
    """The multiple of 10 that all but one in a thousand of |values| stay within, at least 10."""
    return max(10.0, 10 * np.ceil(np.percentile(np.abs(values), 99.9) / 10 + 1e-9)) if len(values) else 10.0


def _heat(counts: ndarray) -> str:
    """A picture of counts (rows, columns): white where nothing is, then the darker the more there are."""
    part = np.sqrt(counts / max(counts.max(), 1))
    shades = cv2.applyColorMap((225 - 205 * part).astype(np.uint8), cv2.COLORMAP_MAGMA)
    shades[counts == 0] = 255
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", shades)[1].tobytes()).decode()


def density_plot(degrees: ndarray, name: str, bins: int = 50) -> str:
    """Density of (N, 2) pitch and yaw, degrees, with the histograms of each. Yaw runs leftwards, as in the image."""
    reach = nice_reach(degrees)
    edges = np.linspace(-reach, reach, bins + 1)
    inside = np.clip(degrees, -reach, reach - 1e-9)
    counts = np.histogram2d(-inside[:, 1], -inside[:, 0], (edges, edges))[0].T
    ticks = [-reach, -reach / 2, 0.0, reach / 2, reach]

    def across(value: float) -> float:
        return _LEFT + _WIDTH * (reach - value) / (2 * reach)

    def down(value: float) -> float:
        return 40 + _HEIGHT * (reach - value) / (2 * reach)

    lines = [f'<svg width="{_LEFT + _WIDTH + 50}" height="{40 + _HEIGHT + _BOTTOM}">']
    place = f'x="{_LEFT}" y="40" width="{_WIDTH}" height="{_HEIGHT}"'
    lines.append(
        f'<image {place} preserveAspectRatio="none" style="image-rendering:pixelated" href="{_heat(counts)}"/>'
    )
    lines.append(f'<rect {place} fill="none" stroke="#9aa5b1"/>')
    for value in ticks:
        x, y = across(value), down(value)
        lines.append(f'<line x1="{x}" x2="{x}" y1="40" y2="{40 + _HEIGHT}" stroke="#0002"/>')
        lines.append(f'<line y1="{y}" y2="{y}" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" stroke="#0002"/>')
        lines.append(f'<text x="{x}" y="{40 + _HEIGHT + 14}" text-anchor="middle">{value:g}</text>')
        lines.append(f'<text x="{_LEFT - 5}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    middle = _LEFT + _WIDTH / 2
    lines.append(
        f'<text x="{middle}" y="{40 + _HEIGHT + 29}" text-anchor="middle">yaw, degrees (image left is +)</text>'
    )
    lines.append(
        f'<text x="12" y="{40 + _HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 12 {40 + _HEIGHT / 2})">'
    )
    lines.append("pitch, degrees (up is +)</text>")
    step = _WIDTH / bins
    for i, (column, row) in enumerate(zip(counts.sum(axis=0), counts.sum(axis=1), strict=True)):
        tall, wide = 36 * column / counts.sum(axis=0).max(), 44 * row / counts.sum(axis=1).max()
        place = f'x="{_LEFT + i * step:.1f}" y="{38 - tall:.1f}" width="{step:.1f}" height="{tall:.1f}"'
        lines.append(f'<rect {place} fill="#7a86c8"/>')
        place = f'x="{_LEFT + _WIDTH + 2}" y="{40 + i * step:.1f}" width="{wide:.1f}" height="{step:.1f}"'
        lines.append(f'<rect {place} fill="#7a86c8"/>')
    mean, spread = degrees.mean(axis=0), degrees.std(axis=0)
    caption = f"{name}: pitch {mean[0]:+.1f} ± {spread[0]:.1f}, yaw {mean[1]:+.1f} ± {spread[1]:.1f} degrees"
    return f"<figure>{''.join(lines)}</svg><figcaption>{caption}</figcaption></figure>"


def bar_chart(counts: list[int], width: int = 1000, height: int = 120) -> str:
    """Bars of counts in the order given, with the largest, the median and the smallest written beside."""
    step, top = min(40.0, width / len(counts)), max(counts)
    gap = 1 if step > 4 else 0
    bars = "".join(
        f'<rect x="{44 + i * step:.2f}" y="{10 + height * (1 - n / top):.2f}" width="{step - gap:.2f}" '
        f'height="{height * n / top:.2f}" fill="#7a86c8"/>'
        for i, n in enumerate(counts)
    )
    axis = f'<line x1="44" x2="{44 + len(counts) * step}" y1="{10 + height}" y2="{10 + height}" stroke="#9aa5b1"/>'
    text = (
        f'<text x="40" y="18" text-anchor="end">{top:,}</text><text x="40" y="{13 + height}" text-anchor="end">0</text>'
    )
    facts = f"largest {top:,}, median {np.median(counts):,g}, smallest {min(counts):,}"
    svg = f'<svg width="{50 + len(counts) * step:.0f}" height="{height + 20}">{bars}{axis}{text}</svg>'
    return f"<figure>{svg}<figcaption>{facts}</figcaption></figure>"
