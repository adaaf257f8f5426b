"""What all converters of raw data share: persons in parallel, one file at the end, and what was left out.

A converter is a function of a person's id that yields samples and things left out. Each person becomes a file of its
own in a hidden folder beside the output, renamed once it is whole, so that after a kill the same command goes on with
the persons that are missing; at the end they are joined to one file, which appears when it is complete. Until then
both take room on the disk. The number of workers and kills leave no trace in it, unless it is compressed: lzf packs
the same images into other bytes from run to run.

The output, OUT.h5: a group a person with `pixels` (N, S, S, 3) uint8 RGB, one image a chunk; `labels` (N, 8) float32
(see `Sample`); `name` (N,) bytes, what each was made from. Root attributes: dataset, version, options (JSON),
num_persons, num_samples, num_left_out, left_out and notes (counts by reason, JSON), split (JSON), split_sha256,
color_order 'RGB', date and what the converter adds. Beside it OUT.left_out.tsv lists what was left out and why.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from urllib.parse import quote

import cv2
import h5py
from tqdm import tqdm

from .face_patches import LeftOut, Sample, add_face_arguments
from .person_file import READ_ERRORS, is_done, write_person

VERSION = 1


@dataclass(frozen=True)
class Conversion:
    """All there is to convert a data set.

    convert: a person's id -> its samples and what was left out, in an order that is always the same. It runs in
    another process: a function of a module, a partial of one, or a frozen dataclass with `__call__`.
    options: what decides the samples, JSON values.  facts: further root attributes.
    split: part -> persons, of the whole data set.  split_file: name of a file to write it to, beside the output.
    """

    dataset: str
    persons: Sequence[str]
    convert: Callable[[str], Iterable[Sample | LeftOut]]
    options: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    split_file: str = ""


def convert_dataset(
    conversion: Conversion,
    out: Path,
    *,
    persons: Sequence[str] | None = None,
    workers: int | None = None,
    compression: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the data set, or some persons of it, to `out`; if it is there already with these options, says so.

    workers: processes; default one a CPU. With more than one the caller's main module must be guarded by `__name__`.
    Raises ValueError for persons that are not there and if there is no sample at all, FileExistsError for another
    file at `out` unless `overwrite`, OSError where the disk is full, KeyboardInterrupt if the user asks to stop.
    """
    out = Path(out)
    chosen = _choose(conversion, persons)
    if workers is not None and workers < 1:
        raise ValueError(f"--workers: found {workers}, expected at least 1.")
    recipe = {
        "dataset": conversion.dataset,
        "version": VERSION,
        "options": json.dumps(dict(conversion.options) | {"compression": compression}, sort_keys=True),
    }
    if out.exists() and not overwrite:
        if _holds(out, recipe, chosen, conversion):
            tqdm.write(f"{out} is there already, made with these options.")
            return
        raise FileExistsError(f"{out} exists and was not made with these options; pass --overwrite to replace it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = _open_parts(out, recipe)
    todo = [person for person in chosen if not is_done(_part(parts, person), person)]
    if len(todo) < len(chosen):
        tqdm.write(f"{len(chosen) - len(todo)} of {len(chosen)} persons were converted before.")
    jobs = [(conversion.convert, person, _part(parts, person), compression) for person in todo]
    try:
        for lines in tqdm(
            _run_all(jobs, workers or cpus()), conversion.dataset, len(jobs), unit="person", disable=None
        ):
            for line in lines:
                tqdm.write(line)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped; the same command goes on with the persons that are missing.") from None
    _finish(conversion, recipe, chosen, parts, out)


def _choose(conversion: Conversion, persons: Sequence[str] | None) -> list[str]:
    if not conversion.persons:
        raise ValueError(f"{conversion.dataset}: no persons found.")
    if persons is None:
        return list(conversion.persons)
    unknown = sorted(set(persons) - set(conversion.persons))
    if unknown:
        some, there = ", ".join(unknown[:3]), ", ".join(conversion.persons[:3])
        raise ValueError(
            f"--persons: {len(unknown)} not in the data ({some}); there are {len(conversion.persons)} ({there}, ...)."
        )
    return [person for person in conversion.persons if person in set(persons)]


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _holds(out: Path, recipe: Mapping[str, object], persons: list[str], conversion: Conversion) -> bool:
    try:
        with h5py.File(out) as file:
            found = dict(file.attrs)
            whole = json.loads(found["persons"]) == persons and found["split_sha256"] == json_sha256(conversion.split)
            return whole and all(found.get(key) == value for key, value in recipe.items())
    except READ_ERRORS:
        return False


def json_sha256(value: object) -> str:
    """The hash of a JSON value, such as the split of a data set."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# Persons, a file each.


def _open_parts(out: Path, recipe: Mapping[str, object]) -> Path:
    """The folder of the persons that are done, without what another recipe or a kill left there."""
    parts = out.with_name(f".{out.name}.parts")
    note = parts / "recipe.json"
    try:
        before = json.loads(note.read_text()) if parts.exists() else recipe
    except (OSError, ValueError):  # a kill came before it was written
        before = {}
    if before != recipe:
        tqdm.write(f"{parts}: begun with other options; starting over.")
        shutil.rmtree(parts)
    parts.mkdir(exist_ok=True)
    for left in parts.glob(".*.tmp"):
        left.unlink()
    note.write_text(json.dumps(recipe))
    return parts


def _part(parts: Path, person: str) -> Path:
    return parts / f"{quote(person, safe='')}.h5"


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and stops the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()  # a killed parent would leave its workers waiting for ever
    os._exit(1)


def _run_all(jobs: list[tuple], workers: int) -> Iterator[list[str]]:
    """`write_person` over jobs, as they get done."""
    if min(workers, len(jobs)) <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield from itertools.starmap(write_person, jobs)
        finally:
            cv2.setNumThreads(threads)
        return
    others = set(active_children())
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        for done in as_completed([pool.submit(write_person, *job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        raise OSError(
            "A worker process ended without a word: the memory or the disk may be full. The same command goes on; "
            "give it fewer --workers."
        ) from error
    except BaseException:
        for worker in set(active_children()) - others:  # they would finish their persons first
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# The whole.


def _finish(conversion: Conversion, recipe: Mapping, persons: list[str], parts: Path, out: Path) -> None:
    """Join the persons' files, write what goes beside, and remove the parts."""
    needed, free = sum(_part(parts, person).stat().st_size for person in persons), shutil.disk_usage(parts).free
    if free < needed:
        raise OSError(f"{out}: joining the persons takes {needed / 1e9:.3g} GB, the disk has {free / 1e9:.3g} GB left.")
    whole, listing = parts / "whole", parts / "left_out"
    left_out, notes, samples, num_persons = Counter(), Counter(), 0, 0
    with h5py.File(whole, "w") as file, listing.open("wb") as lines:
        lines.write(b"person\tname\treason\tdetail\n")
        for person in tqdm(persons, "joining", unit="person", leave=False, disable=None):
            with h5py.File(_part(parts, person)) as part:
                lines.write(part["left_out"][()].tobytes())
                left_out.update(json.loads(part.attrs["left_out"]))
                notes.update(json.loads(part.attrs["notes"]))
                if person in part:
                    part.copy(person, file)
                    samples, num_persons = samples + int(part.attrs["num_samples"]), num_persons + 1
        counts = {"num_persons": num_persons, "num_samples": samples, "num_left_out": left_out.total()}
        told = {"left_out": _counts(left_out), "notes": _counts(notes), "persons": json.dumps(persons)}
        split = {"split": json.dumps(conversion.split), "split_sha256": json_sha256(conversion.split)}
        file.attrs.update({**recipe, **conversion.facts, **counts, **told, **split})
        file.attrs.update({"color_order": "RGB", "date": _now()})
    beside = left_out_file(out)
    os.replace(listing, beside)
    if not samples:
        shutil.rmtree(parts)
        raise ValueError(f"{conversion.dataset}: no sample could be converted; {beside} says why.")
    os.replace(whole, out)
    shutil.rmtree(parts)
    _write_split(conversion, out)
    print(f"Wrote {samples} samples of {num_persons} persons to {out}.")
    if left_out:
        print(f"Left out, see {beside}: " + "; ".join(f"{count} {why}" for why, count in left_out.most_common()) + ".")
    for note, count in notes.most_common():
        print(f"Note: {count} samples: {note}.")


def _counts(counts: Counter[str]) -> str:
    return json.dumps(dict(sorted(counts.items())))


def left_out_file(out: Path) -> Path:
    """Where what was left out is listed."""
    return out.with_suffix(".left_out.tsv")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_split(conversion: Conversion, out: Path) -> None:
    if not conversion.split_file:
        return
    path, text = out.with_name(conversion.split_file), json.dumps(conversion.split) + "\n"
    if not path.exists():
        path.write_text(text)
    elif path.read_text() != text:
        print(f"{path} holds another split and was kept; this data's own is the attribute 'split' of {out.name}.")


# The command line.


def add_converter(
    subparsers: argparse._SubParsersAction,
    name: str,
    about: str,
    description: str,
    conversion_from: Callable[[argparse.Namespace], Conversion],
) -> argparse.ArgumentParser:
    """Adds the command of a data set with the options that all of them have; its own are for the caller to add."""
    parser = subparsers.add_parser(
        name, help=about, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="the unpacked download")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5")
    parser.add_argument("--persons", nargs="+", metavar="ID", help="only these; default: all")
    parser.add_argument("--frames-every", type=int, default=1, metavar="N", help="take each Nth frame (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes; default: one a CPU")
    parser.add_argument("--compression", choices=["lzf"], help="default: none, which reads faster")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_face_arguments(parser)
    parser.set_defaults(run=run_arguments, conversion_from=conversion_from)
    return parser


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises what a wrong value of `add_converter`'s options deserves."""
    if not arguments.raw.is_dir():
        raise NotADirectoryError(f"--raw: {arguments.raw} is not a folder. Unpack the download and name its folder.")
    if arguments.frames_every < 1:
        raise ValueError(f"--frames-every: found {arguments.frames_every}, expected at least 1.")


def run_conversion(conversion: Conversion, arguments: argparse.Namespace) -> None:
    """`convert_dataset` with the options of the command line."""
    names = ("persons", "workers", "compression", "overwrite")
    convert_dataset(conversion, arguments.out, **{name: getattr(arguments, name) for name in names})


def run_arguments(arguments: argparse.Namespace) -> None:
    """Runs a data set's command: `arguments.conversion_from` tells what it is to convert."""
    run_conversion(arguments.conversion_from(arguments), arguments)
