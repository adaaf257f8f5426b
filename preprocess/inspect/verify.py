"""`python -m preprocess verify FILE.h5`: is this a file to train on?

Looks at the layout, every label and every image (or some of each person, `--images`), and prints a table of checks:
ok, note, warning (look at it) or FAIL (do not train on it). Exit code 1 if anything fails, else 0. A file without gaze
labels, made of one's own photographs, passes as what it is: the last line says that it serves only to redirect.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import parse_json
from preprocess.commands import COMMANDS
from preprocess.conversion import json_sha256
from preprocess.inspect.audit import audit
from preprocess.inspect.published import DATASETS, compare, find_published
from preprocess.inspect.scan import Check, Scan, scan_file
from preprocess.normalization import ST_ED, label_to_vector

OURS = ("dataset", "version", "options")  # root attributes that our converters write
BLANK = 3.0  # grey levels: an image that deviates less from its mean shows nothing
BLACK = 0.5  # part of an image without any light, from which on it is hardly a face


def verify(
    path: str | Path, dataset: str | None = None, per_person: int | None = None, progress: bool = False
) -> tuple[list[Check], Scan]:
    """All checks of a file, and what they rest on.

    dataset: whose published statistics to compare with; None for the file's attribute `dataset`.
    per_person: images to look at of each person; None for all.
    Raises UserError where there is nothing to check.
    """
    scan = scan_file(path, per_person, progress)
    checks = [_layout(scan), *_attributes(scan)]
    if scan.counts:
        checks += [*_count_and_split(scan), *_groups(scan)]
        checks += _labels(scan)
        if checks[-1].name != "range":  # what follows takes the labels for angles
            checks += [*_eyes(scan), *_statistics(scan, dataset)]
        checks += [*_images(scan), _colours(scan)]
        checks += [_points(scan)] if scan.is_aligned else []
    return checks, scan


def _several(items: list[str], shown: int = 3) -> str:
    return "; ".join(items[:shown]) + (f"; and {len(items) - shown} more" if len(items) > shown else "")


def _layout(scan: Scan) -> Check:
    if scan.problems:
        return Check("layout", "FAIL", _several(scan.problems))
    if not scan.counts:
        return Check("layout", "FAIL", "no persons, expected a group a person")
    total, sizes = sum(scan.counts.values()), sorted(scan.sizes)
    persons = f"{len(scan.counts)} person{'s' * (len(scan.counts) != 1)}"
    found = f"{persons}, {total:,} images of {' and '.join(map(str, sizes))} pixels"
    if len(sizes) > 1:
        return Check("layout", "warning", f"{found}: the reader needs an image_size")
    if max(scan.chunk_rows) > 4:
        found += f", in chunks of {max(scan.chunk_rows)}: random reads are slow, see `convert`"
        return Check("layout", "warning", found)
    return Check("layout", "ok", found)


def _attributes(scan: Scan) -> Iterator[Check]:
    attributes = scan.attributes
    order = attributes.get("color_order")
    if order is None:
        yield Check("color_order", "warning", "not said; the reader goes by its settings. `convert` can add it")
    else:
        yield Check("color_order", "ok" if order in ("RGB", "BGR") else "FAIL", f"{order!r}")
    complete, gaze_known = attributes.get("complete", True), attributes.get("gaze_known", True)
    if complete not in (True, False):
        yield Check("complete", "FAIL", f"{complete!r}, expected true or false")
    elif not complete:
        yield Check("complete", "FAIL", "the file was not finished: run the conversion again")
    if gaze_known not in (True, False):
        yield Check("gaze_known", "FAIL", f"{gaze_known!r}, expected true or false")
    elif not gaze_known:
        yield Check(
            "gaze_known", "warning", "gaze labels only repeat the head's: to redirect, not to train or evaluate"
        )
    missing = [name for name in OURS if name not in attributes]
    if missing and "sources" in attributes:
        yield Check("attributes", "note", f"no {', '.join(missing)}: joined by convert")
    elif missing:
        yield Check("attributes", "note", f"no {', '.join(missing)}: not written by this project")
    if scan.is_aligned and attributes.get("patch_size") != ST_ED.size:
        yield Check("patch_size", "FAIL", f"{attributes.get('patch_size')!r}, expected {ST_ED.size}")
    elif not scan.is_aligned and attributes.get("view") not in (None, "normalized"):
        yield Check("view", "warning", f"{attributes['view']!r} is not known here")


def _count_and_split(scan: Scan) -> Iterator[Check]:
    """What the file says of itself: how much it holds, and which persons are for what."""
    said = scan.attributes.get("num_samples")
    if said is not None and not scan.problems and said != sum(scan.counts.values()):
        number = repr(said) if isinstance(said, str) else f"{said:,}"
        yield Check("num_samples", "FAIL", f"{number} said, {sum(scan.counts.values()):,} there")
    text = scan.attributes.get("split")
    if not isinstance(text, str):
        return
    try:
        split = {part: set(persons) for part, persons in parse_json(text).items()}
    except (ValueError, TypeError, AttributeError):
        yield Check("split", "FAIL", "the attribute cannot be read as JSON, part -> persons")
        return
    if scan.attributes.get("split_sha256") not in (None, json_sha256(parse_json(text))):
        yield Check("split", "FAIL", "its hash is another: it was changed")
    several = [person for person, times in Counter(chain.from_iterable(split.values())).items() if times > 1]
    if several:
        yield Check("split", "FAIL", f"{len(several)} persons in more than one part, such as {several[0]!r}")
    elif split:
        inside = {part: len(persons & scan.counts.keys()) for part, persons in split.items()}
        none = len(scan.counts) - sum(inside.values())
        found = ", ".join(f"{number} of {len(split[part])} {part}" for part, number in inside.items())
        yield Check("split", "note" if none else "ok", found + (f", {none} persons in no part" if none else ""))


def _groups(scan: Scan) -> Iterator[Check]:
    """Samples that share all but gaze and head, where the file says which."""
    if not scan.group_sizes:
        return
    without = [person for person in scan.persons if person not in scan.group_sizes]
    if without:
        few = ", ".join(map(repr, without[:3])) + ", ..." * (len(without) > 3)
        yield Check("groups", "FAIL", f"persons without a data set 'group', which others have: {few}")
        return
    sizes = np.concatenate(list(scan.group_sizes.values()))
    low, high, alone = sizes.min(), sizes.max(), int((sizes == 1).sum())
    found = f"{len(sizes):,} of {high}" if low == high else f"{len(sizes):,} of {low} to {high}"
    found += f" images, {len(sizes) / len(scan.counts):.3g} a person"
    if alone:
        found += f"; {alone:,} images are the only ones of their groups"
    yield Check("groups", "note" if alone else "ok", found)


def _share(bad: ndarray) -> str:
    return f"{int(bad.sum()):,} of {len(bad):,}"


def _first(scan: Scan, bad: ndarray) -> str:
    """Where the first of the marked samples (N,) is."""
    at = int(np.flatnonzero(bad)[0])
    person = scan.owner[at]
    return f"{scan.persons[person]!r}, index {at - int(np.flatnonzero(scan.owner == person)[0])}"


def _labels(scan: Scan) -> Iterator[Check]:
    labels = scan.labels[:, :4]
    broken = ~np.isfinite(labels).all(axis=1)
    if broken.any():
        yield Check("labels", "FAIL", f"not finite: {_share(broken)}, the first in {_first(scan, broken)}")
        if broken.all():
            return
        labels = labels[~broken]
    beyond = (np.abs(scan.labels[:, [0, 2]]) > np.pi / 2).any(axis=1) | (np.abs(scan.labels[:, [1, 3]]) > np.pi).any(
        axis=1
    )
    if beyond.any():
        degrees = " They look like degrees, expected radians." if np.percentile(np.abs(labels), 90) > np.pi else ""
        yield Check("range", "FAIL", f"no angles: {_share(beyond)}, the first in {_first(scan, beyond)}.{degrees}")
        return
    if not broken.any():
        mean, spread = np.degrees(labels.mean(axis=0)), np.degrees(labels.std(axis=0))
        names = ("gaze pitch", "gaze yaw", "head pitch", "head yaw")
        text = ", ".join(f"{n} {m:+.1f} ± {s:.1f}" for n, m, s in zip(names, mean, spread, strict=True))
        yield Check("labels", "warning" if len(labels) > 1 and spread.max() < 0.1 else "ok", f"{text} degrees")
    if not scan.attributes.get("gaze_known", True):
        return
    cosine = (label_to_vector(labels[:, :2]) * label_to_vector(labels[:, 2:])).sum(axis=1)
    apart = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    far, median = apart > 60, np.median(apart)
    level = "FAIL" if median > 45 else "warning" if far.mean() > 0.01 else "ok"
    yield Check("gaze in head", level, f"median {median:.1f} degrees; beyond 60, which eyes cannot do: {_share(far)}")


def _eyes(scan: Scan) -> Iterator[Check]:
    """Both eyes look at one point: so they converge, and from above the face centre they look further down."""
    labels = scan.labels[np.isfinite(scan.labels[:, :4]).all(axis=1)]
    eyes = labels[:, 4:8]
    if not len(labels) or np.isnan(eyes).all():
        yield Check("eyes", "note", "no gaze of each eye")
    elif not np.isfinite(eyes).all():
        yield Check("eyes", "FAIL", f"gaze of each eye not finite: {_share(~np.isfinite(eyes).all(axis=1))}")
    elif np.abs(eyes - np.tile(labels[:, :2], 2)).max() < 1e-4:
        yield Check("eyes", "note", "the gaze of each eye repeats the face's")
    else:
        converging = np.degrees(np.mean(np.sin(eyes[:, 3] - eyes[:, 1])))
        lower = np.degrees(np.mean(labels[:, 0] - eyes[:, [0, 2]].mean(axis=1)))
        found = f"converge by {converging:.1f} degrees, look {lower:.1f} degrees lower than from the face centre"
        wrong = [("yaw is flipped or the eyes are swapped", converging), ("pitch is flipped", lower)]
        why = [sentence for sentence, value in wrong if value < -0.05]
        yield Check("eyes", "FAIL" if why else "ok", ": ".join([found, *why]))


def _statistics(scan: Scan, dataset: str | None) -> Iterator[Check]:
    name = dataset or scan.attributes.get("dataset")
    known = find_published(name)
    if dataset is None and scan.attributes.get("synthetic"):
        look = scan.attributes.get("look", "drawn")
        yield Check("published", "note", f"{look} faces: nothing is published to compare with")
    elif known is None:
        given = "not said (--dataset)" if name is None else f"{name!r}, of which nothing is known here"
        yield Check("published", "note", f"data set {given}")
    else:
        counts = f"{len(scan.counts)} of {known.persons} persons"
        counts += f", {sum(scan.counts.values()):,} of at most {known.images:,} images" if known.images else ""
        finite = scan.labels[np.isfinite(scan.labels[:, :4]).all(axis=1)]
        different = compare(known, scan.counts, finite)
        yield Check("published", "ok", f"{name}: {counts}")
        yield from (Check("published", level, sentence) for level, sentence in different)


def _images(scan: Scan) -> Iterator[Check]:
    deviation, black = scan.images[:, 0], scan.images[:, 1]
    for name, bad, level in (("blank images", deviation < BLANK, "FAIL"), ("black images", black > BLACK, "warning")):
        if bad.any():
            where = np.zeros(len(scan.labels), bool)
            where[scan.rows[bad]] = True
            yield Check(name, level, f"{_share(bad)}, the first in {_first(scan, where)}")
        else:
            yield Check(name, "ok", f"none of {len(bad):,}")
    yield _duplicates(scan)


def _duplicates(scan: Scan) -> Check:
    """Equal images: of one person and label they only repeat; else a label, or the split by persons, is wrong."""
    order = np.argsort(scan.hashes, kind="stable")
    same = np.flatnonzero(scan.hashes[order][1:] == scan.hashes[order][:-1])
    if not len(same):
        return Check("duplicates", "ok", f"none of {len(order):,}")
    first, second = scan.rows[order[same]], scan.rows[order[same + 1]]
    shared = scan.owner[first] != scan.owner[second]
    apart = np.degrees(np.abs(scan.labels[first, :4] - scan.labels[second, :4]).max(axis=1))
    found = f"{len(same):,} of {len(order):,} images are there before"
    if shared.any():
        pair = (scan.persons[scan.owner[rows[shared][0]]] for rows in (first, second))
        return Check("duplicates", "FAIL", f"{found}, {int(shared.sum())} with another person ({' and '.join(pair)})")
    if (apart > 5).any():
        where = np.isin(np.arange(len(scan.labels)), second[apart > 5])
        return Check(
            "duplicates", "FAIL", f"{found}, {int((apart > 5).sum())} with other labels ({_first(scan, where)})"
        )
    return Check("duplicates", "warning", f"{found}, with the same person and label")


def _colours(scan: Scan) -> Check:
    """Skin is redder than blue in nearly any light: a guess that only warns."""
    order = scan.attributes.get("color_order", "RGB")
    redder = float((scan.images[:, 2] * (-1 if order == "BGR" else 1) > 0).mean())
    level = "warning" if redder < 0.3 and len(scan.images) >= 20 else "ok"
    return Check("colours", level, f"read as {order}, {redder:.0%} of the faces are redder than blue")


def _points(scan: Scan) -> Check:
    """Homographies, points and head labels of aligned faces, one against the others."""
    none = np.isinf(scan.points_off)
    if none.any():
        return Check("homographies", "FAIL", f"not invertible, or mirroring: {_share(none)}, {_first(scan, none)}")
    median, far = float(np.median(scan.points_off)), scan.points_off > 15
    level = "FAIL" if median > 8 else "warning" if far.mean() > 0.01 else "ok"
    found = f"lead the points to {median:.1f} pixels (median) from where the head label has them in the patch"
    return Check("homographies", level, found + (f"; beyond 15: {_share(far)}" if far.any() else ""))


def table(checks: list[Check]) -> str:
    """The checks as lines of text."""
    width = max(len(check.name) for check in checks)
    return "\n".join(f"  {check.level:<8} {check.name:<{width}}  {check.found}" for check in checks)


def verdict(checks: list[Check]) -> str:
    """What all checks come to, and what the file is good for."""
    failed, warned = (sum(check.level == level for check in checks) for level in ("FAIL", "warning"))
    if failed:
        return f"{failed} failed: do not train on this file."
    passed = f"Passed, with {warned} warning{'s' * (warned > 1)} to look at." if warned else "Passed."
    without_gaze = any(check.name == "gaze_known" for check in checks)
    return passed + " The file serves to redirect, not to train or evaluate." * without_gaze


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `verify` to `python -m preprocess`."""
    parser = subparsers.add_parser("verify", help=COMMANDS["verify"].help, description=__doc__)
    parser.add_argument("file", type=Path, help="HDF5 file of patches or of aligned faces")
    parser.add_argument("--dataset", default=None, help="whose published statistics to compare with (default: it says)")
    parser.add_argument("--images", type=int, default=None, metavar="N", help="look at N images a person, not at all")
    parser.add_argument(
        "--detect", type=int, default=0, metavar="N", help="find N faces and compare them with the labels"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.images is not None and arguments.images < 1:
        raise UserError(f"--images: found {arguments.images}, expected at least 1.")
    if arguments.detect < 0:
        raise UserError(f"--detect: found {arguments.detect}, expected 0 or more faces.")
    if arguments.dataset is not None and find_published(arguments.dataset) is None:
        raise UserError(
            f"--dataset: nothing is known of {arguments.dataset!r}.",
            remedy=f"Choose one of {', '.join(sorted(DATASETS))}.",
        )
    cv2.setNumThreads(1)
    checks, scan = verify(arguments.file, arguments.dataset, arguments.images, progress=not arguments.quiet)
    if arguments.detect:
        checks += audit(arguments.file, scan, arguments.detect, progress=not arguments.quiet)
    print(f"{arguments.file}\n{table(checks)}\n{verdict(checks)}")
    return int(any(check.level == "FAIL" for check in checks))
