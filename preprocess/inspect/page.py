"""`python -m preprocess report FILE.h5`: a page to look at a file of faces.

One HTML file with the pictures inside, readable offline: the checks of `verify`, the faces with arrows of gaze
(yellow) and head (cyan), the densities of the labels and the images of each person.
"""

from __future__ import annotations

import argparse
import base64
import html
from collections.abc import Iterable
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import write_text
from core.hdf5 import open_hdf5, reading
from preprocess.commands import COMMANDS
from preprocess.inspect.plots import bar_chart, density_plot
from preprocess.inspect.scan import Check, Scan
from preprocess.inspect.verify import verdict, verify
from preprocess.normalization import ST_ED, apply_homography

GAZE, HEAD = "ffe000", "00c8ff"  # colours of the arrows
ARROW = 70  # pixels of the patch that an arrow across the line of sight is long
LOOKED_AT = 40  # images a person that the checks look at, unless asked for more
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px; padding: 0 1em; color: #1d2733 }
h1 { font-size: 1.5em; overflow-wrap: anywhere } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } td, th { padding: 2px 12px 2px 0; text-align: left; vertical-align: top }
td:last-child { overflow-wrap: anywhere } .counts td:nth-child(2) { text-align: right }
.ok { color: #23803b } .note { color: #5a6672 } .warning { color: #b06a00 } .FAIL { color: #c0202a; font-weight: bold }
.row { display: flex; align-items: center; gap: 3px; margin: 3px 0 } .row b { width: 7em; overflow-wrap: anywhere }
.faces svg { width: 118px; height: 118px; flex: none } .wrap { flex-wrap: wrap }
.plots { display: flex; flex-wrap: wrap; gap: 18px } figure { margin: 0 } figcaption { color: #5a6672; font-size: 13px }
svg text { font: 11px system-ui, sans-serif; fill: #3a4652 }
#arrows:not(:checked) ~ .faces .marks { display: none }
"""


def spread_over(values: ndarray, count: int) -> ndarray:
    """Indices (at most count,) of samples at even quantiles of values (N,), smallest first."""
    order = np.argsort(values, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))]


def _picture(image: ndarray, is_bgr: bool) -> str:
    bgr = np.ascontiguousarray(image if is_bgr else image[..., ::-1])
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _arrow(label: ndarray, start: tuple[float, float], to_picture: ndarray, size: int, colour: str) -> str:
    """A line of at most ARROW pixels of the patch, from `start` there, with a dot where it begins."""
    across, up = np.cos(label[0]) * np.sin(label[1]), np.sin(label[0])
    tip = (start[0] - ARROW * across, start[1] - ARROW * up)
    (x1, y1), (x2, y2) = apply_homography(to_picture, np.array([start, tip])) + 0.5
    width = size / 50
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#{colour}" '
        f'stroke-width="{width:.1f}" marker-end="url(#tip-{colour})"/>'
        f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="{width:.1f}" fill="#{colour}"/>'
    )


def face(
    image: ndarray,
    label: ndarray,
    is_bgr: bool,
    gaze_known: bool = True,
    to_patch: ndarray | None = None,
    points: ndarray | None = None,
) -> str:
    """SVG of one image with its arrows.

    label: (8,) radians.  to_patch: homography of an aligned face, whose labels hold in the patch.  points: (5, 2).
    """
    size = len(image)
    if to_patch is None:
        ratio = size / ST_ED.size
        to_picture = np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2], [0, 0, 1]])
    else:
        to_picture = np.linalg.inv(to_patch)
    marks = _arrow(label[2:4], (63.5, 74.0), to_picture, size, HEAD)
    if gaze_known:
        marks += _arrow(label[:2], (63.5, 38.5), to_picture, size, GAZE)
    for x, y in () if points is None else points + 0.5:
        marks += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size / 80:.1f}" fill="#ff3b6b"/>'
    angles = "gaze {:+.0f} {:+.0f}, head {:+.0f} {:+.0f} degrees (pitch, yaw)".format(*np.degrees(label[:4]))
    return (
        f'<svg viewBox="0 0 {size} {size}"><title>{angles}</title>'
        f'<image width="{size}" height="{size}" href="{_picture(image, is_bgr)}"/><g class="marks">{marks}</g></svg>'
    )


def _faces_of(file: h5py.File, person: str, rows: ndarray, labels: ndarray, scan: Scan) -> str:
    is_bgr, gaze_known = scan.attributes.get("color_order") == "BGR", scan.attributes.get("gaze_known", True)
    names = ("pixels", "homography", "points") if scan.is_aligned else ("pixels",)
    cells = []
    for row in rows:
        with reading(file.filename):
            image, *more = [file[person][name][row] for name in names]
        cells.append(face(image, labels[row], is_bgr, gaze_known, *more))
    return "".join(cells)


def _grid(file: h5py.File, scan: Scan, persons: int, columns: int) -> str:
    lines = []
    for at in np.unique(np.linspace(0, len(scan.counts) - 1, min(persons, len(scan.counts))).round().astype(int)):
        name, labels = scan.persons[at], scan.labels[scan.owner == at]
        usable = np.flatnonzero(np.isfinite(labels[:, :4]).all(axis=1))
        rows = usable[spread_over(labels[usable, 1], columns)]
        lines.append(f'<div class="row"><b>{html.escape(name)}</b>{_faces_of(file, name, rows, labels, scan)}</div>')
    return "".join(lines)


def _strangest(file: h5py.File, scan: Scan, count: int) -> str:
    """The samples whose gaze or head is furthest from all others, where wrong labels show."""
    finite = np.flatnonzero(np.isfinite(scan.labels[:, :4]).all(axis=1))
    if not len(finite):
        return ""
    off = np.abs(scan.labels[finite, :4] - np.median(scan.labels[finite, :4], axis=0)).max(axis=1)
    cells = []
    for at in finite[np.argsort(-off, kind="stable")[:count]]:
        person = scan.owner[at]
        labels = scan.labels[scan.owner == person]
        row = at - np.flatnonzero(scan.owner == person)[0]
        cells.append(_faces_of(file, scan.persons[person], np.array([row]), labels, scan))
    return f'<div class="row wrap">{"".join(cells)}</div>'


def _rows(cells: Iterable[tuple[object, ...]], kind: str = "") -> str:
    lines = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in cells)
    return f'<table class="{kind}">' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _checks(checks: list[Check]) -> str:
    cells = (
        f'<tr><td class="{check.level}">{check.level}</td><td>{check.name}</td><td>{html.escape(check.found)}</td></tr>'
        for check in checks
    )
    return f"<table>{''.join(cells)}</table><p>{verdict(checks)}</p>"


def _plots(scan: Scan) -> str:
    labels = np.degrees(scan.labels[np.isfinite(scan.labels[:, :4]).all(axis=1)])
    gaze_known = scan.attributes.get("gaze_known", True)
    kinds = [("gaze", labels[:, :2]), ("head", labels[:, 2:4]), ("gaze minus head", labels[:, :2] - labels[:, 2:4])]
    return "".join(density_plot(values, name) for name, values in (kinds if gaze_known else kinds[1:2]) if len(values))


def _markers() -> str:
    shape = '<marker id="tip-{0}" viewBox="0 0 6 6" refX="3" refY="3" markerWidth="4" markerHeight="4" orient="auto">'
    shape += '<path d="M0 0L6 3L0 6z" fill="#{0}"/></marker>'
    return '<svg width="0" height="0">' + "".join(shape.format(colour) for colour in (GAZE, HEAD)) + "</svg>"


def make_page(path: Path, out: Path, persons: int = 12, columns: int = 8, per_person: int | None = LOOKED_AT) -> None:
    """Writes the page of a file.

    persons, columns: of the grid of faces.  per_person: images a person that the checks look at; None for all.
    Raises UserError if there is nothing to show.
    """
    checks, scan = verify(path, per_person=per_person)
    if not scan.counts:
        raise UserError(f"{path}: no person can be read. {checks[0].found}.", remedy="Re-run preprocessing.")
    name, attributes = html.escape(Path(path).name), sorted(scan.attributes.items())
    counts = sorted(scan.counts.items(), key=lambda item: (-item[1], item[0]))
    shown = "all images" if per_person is None else f"all labels, and {per_person} images a person at most"
    with open_hdf5(path) as file:
        parts = [
            f"<!doctype html><meta charset='utf-8'><title>{name}</title><style>{_STYLE}</style>{_markers()}",
            f"<h1>{name}</h1><h2>Checks</h2><p>They looked at {shown}.</p>{_checks(checks)}",
            "<h2>Faces</h2><p>A row is a person, in the order of the gaze's yaw: from left to right along it the eyes "
            "turn from image right to image left. Yellow is gaze, cyan is head; arrows point to where it looks.</p>",
            "<input type='checkbox' id='arrows' checked><label for='arrows'> arrows</label>",
            f"<div class='faces'>{_grid(file, scan, persons, columns)}</div>",
            f"<div class='faces'><h2>Most unusual labels</h2>{_strangest(file, scan, 2 * columns)}</div>",
            f"<h2>Labels</h2><div class='plots'>{_plots(scan)}</div>",
            f"<h2>Images of each person</h2>{bar_chart([count for _, count in counts])}",
            f"<details><summary>by name ({len(counts)})</summary>{_rows(counts, 'counts')}</details>",
            f"<h2>Attributes</h2>{_rows([(key, str(value)[:2000]) for key, value in attributes])}",
        ]

    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "\n".join(parts))


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `report` to `python -m preprocess`."""
    parser = subparsers.add_parser("report", help=COMMANDS["report"].help, description=__doc__)
    parser.add_argument("file", type=Path, help="HDF5 file of patches or of aligned faces")
    parser.add_argument("--out", type=Path, default=None, help="the page (default: beside the file, .html)")
    parser.add_argument("--persons", type=int, default=12, help="rows of faces (default: 12)")
    parser.add_argument("--columns", type=int, default=8, help="faces in a row (default: 8)")
    parser.add_argument("--all-images", action="store_true", help=f"check every image, not {LOOKED_AT} a person")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    for name in ("persons", "columns"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name}: found {getattr(arguments, name)}, expected at least 1.")
    out = arguments.out or arguments.file.with_suffix(".html")
    if out.is_dir() or out.resolve() == arguments.file.resolve():
        raise UserError(f"--out: found {out}, expected the name of an .html file.")
    make_page(arguments.file, out, arguments.persons, arguments.columns, None if arguments.all_images else LOOKED_AT)
    print(f"Wrote {out}.")
