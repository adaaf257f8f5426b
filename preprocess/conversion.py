"""What all converters of raw data share: persons in parallel, one file at the end, and what was left out.

A converter is a function of a person's id that yields samples and things left out. Each person becomes a file of its
own in a hidden folder beside the output, renamed once it is whole, so that after a kill the same command goes on with
the persons that are missing; at the end they are joined to one file, which appears when it is complete. Until then
both take room on the disk. The number of workers and kills leave no trace in it, unless it is compressed: lzf packs
the same images into other bytes from run to run.

The output, OUT.h5: a group a person with `pixels` (N, S, S, 3) uint8 RGB, one image a chunk; `labels` (N, 8) float32
(see `Sample`); `name` (N,) bytes, what each was made from. Root attributes: dataset, version, options (JSON),
fingerprints (of raw data and landmarks, JSON), num_persons, num_samples, num_left_out (persons apart), left_out and
notes (counts by reason, JSON), split (JSON), split_sha256, color_order 'RGB', date and what the converter adds. Beside
it OUT.left_out.tsv lists what was left out and why.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from core.command import UserError
from core.disk import FULL, megabytes
from core.files import parse_json, read_text, remove_left, require_writable, write_text
from core.hdf5 import DamagedFile, open_hdf5, read_attributes, reading
from core.person_parts import Facts, PersonParts, remove_parts
from preprocess.face_patches import LeftOut, Sample, add_face_arguments
from preprocess.fingerprints import check_landmarks, differences, fingerprints, places
from preprocess.person_file import DAMAGED, NOTHING, SAMPLES, is_done, write_person
from preprocess.workers import cpus, run_all

VERSION = 2


@dataclass(frozen=True)
class Conversion:
    """All there is to convert a data set.

    convert: a person's id -> its samples and what was left out, in an order that is always the same. It runs in
    another process: a function of a module, a partial of one, or a frozen dataclass with `__call__`.
    options: what decides the samples, JSON values.  facts: further root attributes.
    split: part -> persons, of the whole data set.  split_file: name of a file to write it to, beside the output.
    raw, landmarks: folders of what it is made from, so that others are not taken for them.
    """

    dataset: str
    persons: Sequence[str]
    convert: Callable[[str], Iterable[Sample | LeftOut]]
    options: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    split_file: str = ""
    raw: Path | None = None
    landmarks: Path | None = None


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
    Raises UserError for persons that are not there, if there is no sample at all, for another file at `out` unless
    `overwrite`, where there can be no file, and for landmarks of other data; OSError where there is no room,
    KeyboardInterrupt if the user asks to stop.
    """
    out = Path(out)
    check_out(out)
    chosen = _choose(conversion, persons)
    if workers is not None and workers < 1:
        raise UserError(f"--workers: found {workers}, expected at least 1.")
    facts: dict[str, str | int | float] = {
        "dataset": conversion.dataset,
        "version": VERSION,
        "options": json.dumps(dict(conversion.options) | {"compression": compression}, sort_keys=True),
    }
    if conversion.raw and conversion.landmarks:
        check_landmarks(conversion.landmarks, chosen)
    made_of: dict[str, str | int | float] = {
        "fingerprints": json.dumps(fingerprints(conversion.raw, conversion.landmarks, chosen)),
        "persons": json.dumps(chosen),
        "split_sha256": json_sha256(conversion.split),
    }
    if out.exists() and not overwrite:
        _require_same(out, facts | made_of)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = PersonParts(out, facts | places(conversion.raw, conversion.landmarks), differences)
    try:
        _convert_persons(conversion, chosen, parts, workers or cpus(), compression)
        _finish(conversion, facts | made_of, chosen, parts)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped; the same command goes on with the persons that are missing.") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(f"{out}: {error.strerror}. {_describe_room(parts, chosen)}") from error
    finally:
        remove_left(parts.folder)  # of workers that were stopped
        parts.owner.release()


def check_out(out: Path) -> None:
    """Raises UserError that names --out if no file can be written there."""
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; name a file, such as {out / 'faces_128.h5'}.")
    require_writable(out.parent, "--out")


def _choose(conversion: Conversion, persons: Sequence[str] | None) -> list[str]:
    if not conversion.persons:
        raise UserError(f"{conversion.dataset}: no persons found.", remedy="Name the folder of the data with --raw.")
    if persons is None:
        return list(conversion.persons)
    unknown = sorted(set(persons) - set(conversion.persons))
    if unknown:
        some, there = ", ".join(unknown[:3]), ", ".join(conversion.persons[:3])
        raise UserError(
            f"--persons: {len(unknown)} not in the data ({some}); there are {len(conversion.persons)} ({there}, ...).",
            remedy="Name some of these.",
        )
    return [person for person in conversion.persons if person in set(persons)]


def _require_same(out: Path, expected: Facts) -> None:
    """Say that the file is there already. Raises UserError if it was made from or by something else."""
    try:
        with open_hdf5(out) as file, reading(out):
            found = read_attributes(file)
            other = ", ".join(differences({key: found[key] for key in expected if key in found}, expected))
            lacking = Counter(parse_json(found.get("left_out", "{}")))
    except (DamagedFile, TypeError):
        other, lacking = "everything: it is no such file, or damaged", Counter()
    if other:
        raise UserError(
            f"{out} exists and was not made with these options (other {other}); pass --overwrite to replace it."
        )
    tqdm.write(f"{out} is there already, made with these options.")
    if lacking[DAMAGED] + lacking[NOTHING]:
        tqdm.write(
            f"{lacking[DAMAGED] + lacking[NOTHING]} persons could not be converted, see {left_out_file(out)}; when "
            "their data are mended, convert again with --overwrite."
        )


def json_sha256(value: object) -> str:
    """The hash of a JSON value, such as the split of a data set."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# Persons, a file each.


def _convert_persons(
    conversion: Conversion, persons: list[str], parts: PersonParts, workers: int, compression: str | None
) -> None:
    """Those that are not done, and what is to be told of them."""
    todo = [person for person in persons if not is_done(parts.file(person))]
    if len(todo) < len(persons):
        tqdm.write(f"{len(persons) - len(todo)} of {len(persons)} persons were converted before.")
    jobs = [(conversion.convert, person, parts.file(person), compression) for person in todo]
    for lines in tqdm(run_all(write_person, jobs, workers), conversion.dataset, len(jobs), unit="person", disable=None):
        for line in lines:
            tqdm.write(line)


def _describe_room(parts: PersonParts, persons: list[str]) -> str:
    """How much is left on the disk, how much more will be needed, and what to do."""
    done = [path.stat().st_size for person in persons if (path := parts.file(person)).exists()]
    left = f"The disk has {megabytes(shutil.disk_usage(parts.out.parent).free)} left"
    if done:
        whole = sum(done) * len(persons) / len(done)
        left += f" and about {megabytes(2 * whole - sum(done))} more are needed"
    return f"{left}; {len(done)} of {len(persons)} persons are done. Make room, and the same command goes on."


# The whole.


def _finish(conversion: Conversion, facts: Facts, persons: list[str], parts: PersonParts) -> None:
    """Join the persons' files, write what goes beside, and remove the parts; the file itself gets its name last."""
    out, listing = parts.out, parts.folder / ".left_out.tmp"
    needed = sum(parts.file(person).stat().st_size for person in persons)
    if shutil.disk_usage(parts.folder).free < needed:
        raise OSError(errno.ENOSPC, "No space left on device to join the persons")
    counts = _Counts()
    with parts.join() as (file, disk), listing.open("wb") as lines:
        lines.write(b"person\tname\treason\tdetail\n")
        for person in tqdm(persons, "joining", unit="person", leave=False, disable=None):
            with open_hdf5(parts.file(person)) as part:
                lines.write(part["left_out"][()].tobytes())
                counts.add(part.attrs)
                if SAMPLES in part:
                    part.copy(SAMPLES, file, person)
            disk.check()
        file.attrs.update({**facts, **conversion.facts, **counts.attributes(), "split": json.dumps(conversion.split)})
        file.attrs.update({"color_order": "RGB", "date": _now()})
    if not counts.samples:
        beside = out.with_suffix(".failed.left_out.tsv") if out.exists() else left_out_file(out)
        os.replace(listing, beside)
        remove_parts(out)
        raise UserError(
            f"{conversion.dataset}: no sample could be converted; {beside} says why.",
            remedy="Mend that, and run the same command again.",
        )
    os.replace(listing, left_out_file(out))
    _write_split(conversion, out)
    parts.finish()
    counts.tell(out)


class _Counts:
    """What all persons come to."""

    def __init__(self) -> None:
        self.samples, self.persons = 0, 0
        self.left_out: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def add(self, person: Mapping) -> None:
        """person: the attributes of its file."""
        self.samples += int(person["num_samples"])
        self.persons += int(person["num_samples"] > 0)
        self.left_out.update(json.loads(person["left_out"]))
        self.notes.update(json.loads(person["notes"]))

    @property
    def persons_left_out(self) -> Counter[str]:
        return Counter({reason: self.left_out[reason] for reason in (DAMAGED, NOTHING) if self.left_out[reason]})

    @property
    def samples_left_out(self) -> Counter[str]:
        return self.left_out - self.persons_left_out

    def attributes(self) -> dict[str, str | int]:
        """Root attributes of the file, in their order."""
        totals = {"num_persons": self.persons, "num_samples": self.samples}
        totals["num_left_out"] = self.samples_left_out.total()
        return {**totals, "left_out": _counts(self.left_out), "notes": _counts(self.notes)}

    def tell(self, out: Path) -> None:
        """Say what was written and what was not."""
        print(f"Wrote {self.samples} samples of {self.persons} persons to {out}.")
        left_out = f"Left out, see {left_out_file(out)}"
        for what, counted in ((left_out, self.samples_left_out), ("Persons left out", self.persons_left_out)):
            if counted:
                print(f"{what}: " + "; ".join(f"{count} {why}" for why, count in counted.most_common()) + ".")
        for note, count in self.notes.most_common():
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
        write_text(path, text)
    elif read_text(path) != text:
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
    """Raises UserError for a wrong value of `add_converter`'s options."""
    if not arguments.raw.is_dir():
        raise UserError(f"--raw: {arguments.raw} is not a folder. Unpack the download and name its folder.")
    if arguments.frames_every < 1:
        raise UserError(f"--frames-every: found {arguments.frames_every}, expected at least 1.")


def run_conversion(conversion: Conversion, arguments: argparse.Namespace) -> None:
    """`convert_dataset` with the options of the command line."""
    names = ("persons", "workers", "compression", "overwrite")
    conversion = replace(conversion, raw=vars(arguments).get("raw"), landmarks=arguments.landmarks)
    convert_dataset(conversion, arguments.out, **{name: getattr(arguments, name) for name in names})


def run_arguments(arguments: argparse.Namespace) -> None:
    """Runs a data set's command: `arguments.conversion_from` tells what it is to convert."""
    run_conversion(arguments.conversion_from(arguments), arguments)
