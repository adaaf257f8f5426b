"""`python -m preprocess convert IN.h5 [MORE.h5 ...] --out OUT.h5`: the same samples in another file.

Joins files, keeps some persons of them, and sets how images are stored: compression, images a chunk, colour order.
Attributes on which all inputs agree are kept; those of each are in the attribute `sources` (JSON). What the
converters counted (left_out, notes and the like) is of the inputs and stays only there.
"""

from __future__ import annotations

import argparse
import errno
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from core.command import UserError
from core.disk import FULL, megabytes
from core.files import read_json
from core.hdf5 import open_hdf5, persons_in, read_attributes, reading
from core.person_parts import write_whole
from preprocess.commands import COMMANDS
from preprocess.conversion import check_out
from preprocess.inspect.scan import blocks, person_problems

COMPRESSIONS = ("none", "lzf", "gzip")
# Attributes that say what the numbers mean: files that differ in one must not become one.
MEANING = {"view": None, "patch_size": None, "gaze_known": True}  # with what it is where nothing is said
# Attributes of a file as a whole, which are made anew or are true of the inputs only.
_OWN = ("num_persons", "num_samples", "persons", "color_order", "date", "sources")
_OF_INPUTS = ("fingerprints", "num_left_out", "left_out", "notes", "complete")


@dataclass(frozen=True)
class Storage:
    """How images are stored. compression: of COMPRESSIONS.  level: of gzip, 1 to 9.  chunk: images."""

    compression: str = "none"
    level: int = 4
    chunk: int = 1

    def options(self, shape: tuple[int, ...]) -> dict:
        """For h5py's create_dataset, of a data set of this shape (N, ...)."""
        if self.compression == "none" and self.chunk >= shape[0]:
            return {}
        options: dict = {"chunks": (min(self.chunk, shape[0]), *shape[1:])}
        if self.compression != "none":
            options["compression"] = self.compression
        if self.compression == "gzip":
            options["compression_opts"] = self.level
        return options


@dataclass(frozen=True)
class Source:
    """A person of an input file, with the name of the group to write."""

    file: h5py.File
    person: str
    name: str
    is_bgr: bool

    @property
    def group(self) -> h5py.Group:
        """What the input has of the person. Raises UserError."""
        with self.reading():
            return self.file[self.person]

    def reading(self) -> AbstractContextManager[None]:
        """h5py's errors within become a UserError."""
        return reading(self.file.filename, f"person {self.person!r} cannot be read")


def convert(
    inputs: Sequence[Path],
    out: Path,
    *,
    persons: Sequence[str] | None = None,
    prefixes: Sequence[str] | None = None,
    storage: Storage = Storage(),  # noqa: B008 -- frozen
    color_order: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Writes persons of the inputs to `out`, which appears when it is whole. Returns the number of samples.

    persons: names in the inputs; None for all.  prefixes: put before the persons' names, one for each input.
    color_order: of inputs that do not say; the output is RGB where the order is known.
    Raises OSError where there is no room, and UserError with all that forbids it.
    """
    inputs, out = [Path(path) for path in inputs], Path(out)
    check_out(out)
    if out.resolve() in [path.resolve() for path in inputs]:
        raise UserError(f"--out: found {out}, which is an input; choose another name.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; pass --overwrite to replace it.")
    if prefixes is not None and len(prefixes) != len(inputs):
        raise UserError(f"--prefixes: found {len(prefixes)}, expected one for each of the {len(inputs)} inputs.")
    with ExitStack() as stack:
        files = [stack.enter_context(open_hdf5(path)) for path in inputs]
        found = [read_attributes(file) for file in files]
        orders = [attributes.get("color_order", color_order) for attributes in found]
        sources = _choose(files, orders, persons, prefixes or [""] * len(files))
        problems = _clashes(inputs, found, orders, sources)
        if problems:
            raise UserError("These inputs cannot become one file:\n  " + "\n  ".join(problems))
        out.parent.mkdir(parents=True, exist_ok=True)
        with _said_where_full(out, sources, storage), write_whole(out) as (file, disk):
            total = 0
            for source in tqdm(sources, "convert", unit="person", disable=None if progress else True):
                with source.reading():
                    total += _copy_person(source, file, storage)
                disk.check()
            about = _attributes(inputs, found, sources, total)
            if any(source.name != source.person for source in sources):
                about = {name: value for name, value in about.items() if not name.startswith("split")}
            file.attrs.update({name: _as_stored(files[0], name, value) for name, value in about.items()})
            if orders[0] is not None:
                file.attrs["color_order"] = "RGB"
    return total


@contextmanager
def _said_where_full(out: Path, sources: list[Source], storage: Storage) -> Iterator[None]:
    """Raises OSError with what is needed where there is no room; at once where that is known."""
    tables = [data for source in sources for data in source.group.values() if isinstance(data, h5py.Dataset)]
    needed = sum((table.size or 0) * table.id.get_type().get_size() for table in tables)  # numpy lacks some types
    try:
        if storage.compression == "none" and shutil.disk_usage(out.parent).free < needed:
            raise OSError(errno.ENOSPC, "No space left on device")
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{out}: {error.strerror}. The disk has {megabytes(shutil.disk_usage(out.parent).free)} left, the samples "
            f"take {megabytes(needed)} before compression. Make room or choose another disk; nothing was written."
        ) from error


def _choose(
    files: list[h5py.File], orders: list[str | None], persons: Sequence[str] | None, prefixes: Sequence[str]
) -> list[Source]:
    """The persons to write, by name."""
    wanted = None if persons is None else set(persons)
    sources = [
        Source(file, person, prefix + person, order == "BGR")
        for file, order, prefix in zip(files, orders, prefixes, strict=True)
        for person in persons_in(file)
        if wanted is None or person in wanted
    ]
    missing = sorted(wanted - {source.person for source in sources}) if wanted is not None else []
    if missing:
        raise UserError(
            f"--persons: {len(missing)} in none of the inputs ({', '.join(missing[:3])}).",
            remedy="Name persons that are.",
        )
    if not sources:
        raise UserError("No persons in the inputs, expected a group a person.")
    return sorted(sources, key=lambda source: source.name)


def _clashes(inputs: list[Path], found: list[dict], orders: list[str | None], sources: list[Source]) -> list[str]:
    problems = []
    for path, order in zip(inputs, orders, strict=True):
        if order not in (None, "RGB", "BGR"):
            problems.append(f"{path}: color_order is {order!r}, expected 'RGB' or 'BGR'")
        elif order is None and any(orders):
            problems.append(f"{path}: does not say its color_order, others do; say it with --color-order")
    for name, unsaid in MEANING.items():
        values = [attributes.get(name, unsaid) for attributes in found]
        if len(set(values)) > 1:
            problems.append(f"attribute {name} differs: " + ", ".join(map(repr, values)))
    shared = [name for name, times in Counter(source.name for source in sources).items() if times > 1]
    if shared:
        problems.append(
            f"{len(shared)} persons are in more than one input ({', '.join(shared[:3])}): tell them apart by "
            "--prefixes, or name --persons"
        )
    kinds: dict[tuple, str] = {}
    for source in sources:
        with source.reading():
            group = source.group
            wrong = person_problems(group)
            kind = None if wrong else _kind(group)
        problems += [f"{source.file.filename}: {source.person!r} {problem}" for problem in wrong]
        if kind is not None:
            kinds.setdefault(kind, f"{source.person!r} of {Path(source.file.filename).name}")
    if len(kinds) > 1:
        few = [f"{where} has {dict(kind)}" for kind, where in list(kinds.items())[:2]]
        problems.append("persons differ in what they hold: " + ", but ".join(few))
    return problems


def _kind(group: h5py.Group) -> tuple:
    """Names of the data sets with the shape of a row: what all persons of a file must share."""
    return tuple(
        sorted((name, (data.shape or ())[1:]) for name, data in group.items() if isinstance(data, h5py.Dataset))
    )


def _copy_person(source: Source, file: h5py.File, storage: Storage) -> int:
    old, new = source.group, file.create_group(source.name)
    new.attrs.update(dict(old.attrs))
    for name, data in old.items():
        if name != "pixels":
            old.copy(data, new, name)
            continue
        pixels = new.create_dataset(name, data.shape, data.dtype, track_times=False, **storage.options(data.shape))
        pixels.attrs.update(dict(data.attrs))
        start, multiple = 0, pixels.chunks[0] if pixels.chunks else 1  # so that no chunk is compressed twice
        for block in blocks(data, np.arange(len(data)), multiple):
            pixels[start : start + len(block)] = block[..., ::-1] if source.is_bgr else block
            start += len(block)
    return len(old["labels"])


def _attributes(inputs: list[Path], found: list[dict], sources: list[Source], total: int) -> dict:
    kept = {
        name: value
        for name, value in found[0].items()
        if name not in (*_OWN, *_OF_INPUTS) and all(repr(other.get(name)) == repr(value) for other in found[1:])
    }
    told = [
        {"file": path.name, **{k: _short(v) for k, v in attributes.items() if k not in ("persons", "split")}}
        for path, attributes in zip(inputs, found, strict=True)
    ]
    names = [source.name for source in sources]
    made = {"num_persons": len(names), "num_samples": total, "persons": json.dumps(names)}
    made["sources"] = json.dumps(told, sort_keys=True)
    if len(inputs) > 1 and "dataset" not in kept:
        made["dataset"] = " + ".join(dict.fromkeys(str(attributes.get("dataset", "?")) for attributes in found))
    return kept | made


def _as_stored(first: h5py.File, name: str, value: object) -> object:
    """The attribute to write: an array where the input's is one, of which `value` is but the text."""
    if name not in first.attrs or name in (*_OWN, "dataset"):
        return value
    try:
        stored = first.attrs[name]
    except TypeError:  # of a type that numpy does not have: the text of it
        return value
    return stored if isinstance(stored, np.ndarray | h5py.Empty) else value


def _short(value: object) -> object:
    return value if isinstance(value, bool | int | float) else str(value)[:300]


def _read_persons(arguments: argparse.Namespace) -> list[str] | None:
    """The persons of --persons and of --split, --part."""
    if (arguments.split is None) != (arguments.part is None):
        raise UserError("--split FILE and --part NAME belong together.", remedy="Give both, or neither.")
    if arguments.split is None:
        return arguments.persons
    if arguments.persons is not None:
        raise UserError("--persons and --split both say which persons; give one of them.")
    try:
        parts = read_json(arguments.split)
        persons = parts[arguments.part]
    except OSError as error:
        raise UserError(
            f"--split: {arguments.split} cannot be read ({error.strerror}).", remedy="Correct the path."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--split: {arguments.split} has no part {arguments.part!r} ({error}).", remedy="Name one that it has."
        ) from error
    if not isinstance(persons, list) or not all(isinstance(person, str) for person in persons):
        raise UserError(
            f"--split: part {arguments.part!r} of {arguments.split} is not a list of names.",
            remedy='Write it as ["00002", ...].',
        )
    return persons


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `convert` to `python -m preprocess`."""
    parser = subparsers.add_parser("convert", help=COMMANDS["convert"].help, description=__doc__)
    parser.add_argument("inputs", type=Path, nargs="+", metavar="IN.h5")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.h5")
    parser.add_argument("--persons", nargs="+", metavar="ID", help="only these; default: all")
    parser.add_argument("--split", type=Path, metavar="JSON", help="with --part: only the persons of this part")
    parser.add_argument("--part", metavar="NAME", help="train, val, test, ...")
    parser.add_argument("--prefixes", nargs="+", metavar="TEXT", help="put before the persons' names, one an input")
    parser.add_argument("--compression", choices=COMPRESSIONS, default="none", help="(%(default)s, which reads faster)")
    parser.add_argument("--level", type=int, default=4, help="of gzip, 1 to 9 (%(default)s)")
    parser.add_argument("--chunk", type=int, default=1, metavar="N", help="images a chunk (%(default)s)")
    parser.add_argument("--color-order", choices=("RGB", "BGR"), help="of inputs that do not say")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.chunk < 1 or not 1 <= arguments.level <= 9:
        raise UserError(f"--chunk {arguments.chunk}, --level {arguments.level}: expected 1 or more, and 1 to 9.")
    total = convert(
        arguments.inputs,
        arguments.out,
        persons=_read_persons(arguments),
        prefixes=arguments.prefixes,
        storage=Storage(arguments.compression, arguments.level, arguments.chunk),
        color_order=arguments.color_order,
        overwrite=arguments.overwrite,
    )
    print(f"Wrote {total:,} samples to {arguments.out}, {arguments.out.stat().st_size / 1e6:,.1f} MB.")
