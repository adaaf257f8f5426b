"""The embedded data set: procedural faces with exact labels, in the files that training and evaluation read.

`python -m preprocess synthetic --out DIR` makes a training file, three files with other statistics for a
full offline evaluation, a person split and a contact sheet. Labels are as `preprocess/normalization.py` has them.
Where samples come in groups, `group` (N,) int32 has the number of each sample's.

With `--aligned S` each file NAME_128.h5 of patches comes with NAME_aligned_S.h5: FFHQ-aligned faces of the same
samples, in the same groups and order, as seen by an un-normalised camera at the same place. A group holds
`pixels` (N, S, S, 3) uint8 RGB; `labels` (N, 8) float32, those of the patches, hence in the normalised camera's
frame; `homography` (N, 3, 3) float64, pixel coordinates of the aligned face to those of the normalised patch of
`patch_size` pixels; `points` (N, 5, 2) float64, eyes, nose tip and mouth corners in aligned pixels (column, row),
image left first. Pixel coordinates are integers at the centres of pixels. Root attributes beside those of the
patches' file: `view` 'ffhq-aligned' and `patch_size`, 128 whatever the size of the patches written.
"""

import argparse
import json
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy import ndarray
from tqdm import tqdm

from core.command import UserError
from core.disk import said_where_full
from core.files import write_text
from core.person_parts import write_whole
from preprocess.commands import COMMANDS
from preprocess.synthetic.domains import DOMAINS, VARIATIONS, Domain
from preprocess.synthetic.samples import FRAMINGS, LOOKS, Style, groups_of, render_aligned_person, render_person
from preprocess.synthetic.scene import PATCH_SIZE
from preprocess.synthetic.together import finish_moving, made_together
from preprocess.workers import cpus, one_thread, start_pool, submit

VERSION = 1
SIZES = (64, 128, 256)
SPLIT_FILE, SHEET_FILE = "gazecapture_split.json", "contact_sheet.png"


def split_persons(ids: list[str]) -> dict[str, list[str]]:
    """Holds out the last sixth, three to twelve persons: a third for validation, the larger part for test.

    Beyond twelve a further person teaches more in training than it tells in a test.
    """
    held = min(max(3, round(len(ids) / 6)), 12)
    val = max(1, held // 3)
    start = len(ids) - held
    return {"train": ids[:start], "val": ids[start : start + val], "test": ids[start + val :]}


def _render_all(render: Callable, jobs: list[tuple], workers: int) -> Generator:
    """render over jobs, in order, with few results waiting."""
    if workers == 1:
        with one_thread():
            yield from (render(*job) for job in jobs)
        return
    pool = start_pool(workers)
    waiting, rest = deque[Future](), iter(jobs)
    try:
        for job in rest:
            waiting.append(submit(pool, render, *job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_person(file: h5py.File, person_id: str, pixels: ndarray, **others: ndarray) -> None:
    group = file.create_group(person_id)
    # Not compressed: lzf saves a tenth on noisy images, makes a read dearer (benchmarks/reading.py) and packs the
    # same pixels into different bytes from run to run.
    group.create_dataset("pixels", data=pixels, chunks=(1, *pixels.shape[1:]), track_times=False)
    for name, values in others.items():
        group.create_dataset(name, data=values, track_times=False)


def _groups(samples: int, style: Style) -> dict[str, ndarray]:
    return {"group": groups_of(samples, style.group_size)} if style.group_size > 1 else {}


def _draw_arrow(picture: ndarray, angles: ndarray, start: tuple[float, float], rgb: tuple[int, int, int]) -> None:
    size = picture.shape[0]
    tip = (start[0] - 0.4 * size * np.sin(angles[1]), start[1] - 0.4 * size * np.sin(angles[0]))
    a, b = (tuple(round(float(c)) for c in p) for p in (start, tip))
    cv2.arrowedLine(picture, a, b, rgb, max(1, size // 64), cv2.LINE_AA, tipLength=0.25)


def contact_sheet(rows: list[tuple[ndarray, ndarray]]) -> ndarray:
    """Persons as rows, samples as columns; every third column shows gaze (yellow) and head (cyan) arrows."""
    lines = []
    for pixels, labels in rows:
        pictures = [p.copy() for p in pixels]
        size = pixels.shape[1]
        for picture, label in list(zip(pictures, labels, strict=True))[2::3]:
            _draw_arrow(picture, label[2:4], (0.5 * size, 0.55 * size), (0, 220, 255))
            _draw_arrow(picture, label[:2], (0.5 * size, 0.3 * size), (255, 230, 0))
        lines.append(np.concatenate(pictures, axis=1))
    return np.concatenate(lines, axis=0)


def _check(
    persons: int,
    samples: int,
    seed: int,
    image_size: int,
    variation: str,
    workers: int | None,
    aligned_size: int | None,
    look: str,
    group_size: int | None,
    framing: str | None,
    still_heads: float,
) -> None:
    in_groups = (group_size or LOOKS[look]().group_size) > 1 if look in LOOKS else True
    rules = (
        (persons >= 4, "persons", persons, "at least 4 (a split needs train, val and two test persons)"),
        (samples >= 1, "samples", samples, "at least 1"),
        (seed >= 0, "seed", seed, "0 or more"),
        (image_size in SIZES, "image-size", image_size, "64, 128 or 256"),
        (aligned_size is None or aligned_size in SIZES, "aligned", aligned_size, "64, 128 or 256"),
        (variation in VARIATIONS, "variation", repr(variation), " or ".join(VARIATIONS)),
        (workers is None or workers >= 1, "workers", workers, "at least 1"),
        (look in LOOKS, "look", repr(look), " or ".join(LOOKS)),
        (group_size is None or group_size >= 1, "group-size", group_size, "at least 1"),
        (framing is None or framing in FRAMINGS, "framing", repr(framing), " or ".join(FRAMINGS)),
        (0 <= still_heads <= 1, "still-heads", still_heads, "a share from 0 to 1"),
        (in_groups or not still_heads, "still-heads", still_heads, "0 without groups (--group-size 2 or more)"),
    )
    problems = [f"--{flag}: found {found}, expected {expected}" for fine, flag, found, expected in rules if not fine]
    if problems:
        raise UserError("; ".join(problems) + ".")


def output_names(image_size: int, aligned_size: int | None = None) -> list[str]:
    """The files a run writes."""
    aligned = [] if aligned_size is None else [_aligned_name(domain, aligned_size) for domain in DOMAINS]
    return [f"{d.name}_{image_size}.h5" for d in DOMAINS] + aligned + [SPLIT_FILE, SHEET_FILE]


def _aligned_name(domain: Domain, size: int) -> str:
    return f"{domain.name}_aligned_{size}.h5"


def make_dataset(
    out: Path,
    *,
    persons: int,
    samples: int,
    seed: int,
    image_size: int = 128,
    variation: str = "calm",
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    aligned_size: int | None = None,
    look: str = "drawn",
    group_size: int | None = None,
    framing: str | None = None,
    still_heads: float = 0.0,
) -> None:
    """Writes the embedded data set into `out`: four HDF5 files, a person split and a contact sheet.

    aligned_size: of the FFHQ-aligned faces, four more files that leave the others as they are; None for none.
    group_size, framing: as in `samples.Style`; None for those of the look.  still_heads: as there.
    The same arguments give the same pixels and labels, whatever `workers` is (default: one a CPU). Files
    appear only when all are complete. With several workers the caller's main module must be guarded by
    `__name__`.
    Raises UserError for a bad argument, for existing output unless `overwrite`, and where another process writes there;
    OSError where there is no room.
    """
    _check(persons, samples, seed, image_size, variation, workers, aligned_size, look, group_size, framing, still_heads)
    style = _style(look, variation, group_size, framing, still_heads)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: found the file {out}, expected a folder.")
    recipe = {
        "persons": persons, "samples": samples, "seed": seed, "image_size": image_size, "aligned_size": aligned_size,
        "variation": variation, "version": VERSION, **asdict(style),
    }  # fmt: skip
    recipe = json.loads(json.dumps(recipe))
    if finish_moving(out) == recipe and not overwrite:
        return
    existing = [name for name in output_names(image_size, aligned_size) if (out / name).exists()]
    if existing and not overwrite:
        raise UserError(f"{out} already holds {', '.join(existing)}; pass --overwrite to replace them.")
    with said_where_full(out / output_names(image_size)[0]), made_together(out, recipe) as partial:
        options = {"persons": persons, "samples": samples, "image_size": image_size}
        _write_all(partial, options, seed, variation, style, workers or cpus(), progress)
        if aligned_size is not None:
            _write_aligned(partial, options, aligned_size, seed, variation, style, workers or cpus(), progress)


def _style(look: str, variation: str, group_size: int | None, framing: str | None, still_heads: float) -> Style:
    usual = LOOKS[look]()
    return Style(look, VARIATIONS[variation], group_size or usual.group_size, framing or usual.framing, still_heads)


def _write_all(
    folder: Path, options: dict, seed: int, variation: str, style: Style, workers: int, progress: bool
) -> None:
    persons, samples, size = options["persons"], options["samples"], options["image_size"]
    counts, jobs = _counts(persons), _jobs(persons, samples, size, seed, style)
    sheet: list[tuple[ndarray, ndarray]] = []
    bar = tqdm(total=len(jobs) * samples, unit="img", desc="synthetic", disable=not progress)
    results = _render_all(render_person, jobs, min(workers, len(jobs)))
    try:
        for domain, count in zip(DOMAINS, counts, strict=True):
            with write_whole(folder / f"{domain.name}_{size}.h5") as (file, disk):
                _describe(file, domain, options, seed, variation, style)
                for i in range(count):
                    pixels, labels = next(results)
                    _write_person(file, domain.person_id(i), pixels, labels=labels, **_groups(samples, style))
                    if i < (8 if domain is DOMAINS[0] else 1):
                        sheet.append((pixels[:10], labels[:10]))
                    disk.check()
                    bar.update(samples)
    finally:
        results.close()
        bar.close()
    ids = [DOMAINS[0].person_id(i) for i in range(persons)]
    write_text(folder / SPLIT_FILE, json.dumps(split_persons(ids), indent=1) + "\n")
    _write_picture(folder / SHEET_FILE, contact_sheet(sheet))


def _write_aligned(
    folder: Path,
    options: dict,
    size: int,
    seed: int,
    variation: str,
    style: Style,
    workers: int,
    progress: bool,
) -> None:
    persons, samples = options["persons"], options["samples"]
    counts, jobs = _counts(persons), _jobs(persons, samples, size, seed, style)
    bar = tqdm(total=len(jobs) * samples, unit="img", desc="synthetic, aligned", disable=not progress)
    results = _render_all(render_aligned_person, jobs, min(workers, len(jobs)))
    try:
        for domain, count in zip(DOMAINS, counts, strict=True):
            with write_whole(folder / _aligned_name(domain, size)) as (file, disk):
                _describe(file, domain, {**options, "aligned_size": size}, seed, variation, style)
                file.attrs.update({"view": "ffhq-aligned", "patch_size": PATCH_SIZE})
                for i in range(count):
                    _write_person(file, domain.person_id(i), **next(results), **_groups(samples, style))
                    disk.check()
                    bar.update(samples)
    finally:
        results.close()
        bar.close()


def _counts(persons: int) -> list[int]:
    """Persons in each file."""
    return [persons] + [min(max(2, persons // 8), 8)] * (len(DOMAINS) - 1)


def _jobs(persons: int, samples: int, size: int, seed: int, style: Style) -> list[tuple]:
    """Arguments of the renderer, file by file and person by person."""
    counts = enumerate(_counts(persons))
    return [(seed, d, i, samples, size, style) for d, n in counts for i in range(n)]


def _describe(file: h5py.File, domain: Domain, options: dict, seed: int, variation: str, style: Style) -> None:
    statistics = {k: v for k, v in asdict(domain).items() if k not in ("name", "person_id")}
    file.attrs.update(
        {
            "color_order": "RGB",
            "dataset": domain.name,
            "synthetic": True,
            "seed": seed,
            "variation": variation,
            "options": json.dumps({**options, **statistics}, sort_keys=True),
            "version": VERSION,
        }
    )
    # What drawn faces were before there were looks goes without saying: their files stay as they were.
    if style.look != "drawn":
        file.attrs["look"] = style.look
    if style.group_size != 1:
        file.attrs["group_size"] = style.group_size
    if style.framing != "exact":
        file.attrs["framing"] = style.framing
    if style.still_heads:
        file.attrs["still_heads"] = style.still_heads


def _write_picture(path: Path, rgb: ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes())


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `synthetic` to `python -m preprocess`."""
    parser = subparsers.add_parser(
        "synthetic",
        help=COMMANDS["synthetic"].help,
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--persons", type=int, default=48, help="persons in the training file")
    parser.add_argument("--samples", type=int, default=150, help="pictures a person")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=128, help="64, 128 or 256")
    parser.add_argument("--variation", default="calm", help="of light and background: calm or full")
    parser.add_argument("--look", default="drawn", help="of the faces: " + " or ".join(LOOKS))
    parser.add_argument(
        "--group-size",
        type=int,
        metavar="N",
        default=None,
        help="samples in turn that share light, camera, background and expression; default: of the look",
    )
    parser.add_argument(
        "--framing",
        default=None,
        help="exact, or detected: as far from exact as detected landmarks place a face; default: of the look",
    )
    parser.add_argument(
        "--still-heads",
        type=float,
        metavar="SHARE",
        default=0.0,
        help="share of a group's samples that keep the head of its first, and turn the eyes alone",
    )
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one a CPU")
    parser.add_argument(
        "--aligned",
        dest="aligned_size",
        metavar="SIZE",
        type=int,
        default=None,
        help="write FFHQ-aligned faces of the same samples, too, of 64, 128 or 256 pixels",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    given = {k: v for k, v in vars(arguments).items() if k not in ("run", "command")}
    make_dataset(**given)
    names = output_names(arguments.image_size, arguments.aligned_size)
    print(f"Wrote {', '.join(names)} to {arguments.out}.")
