"""What a conversion is made by and from: its options, and by what other raw data and landmarks are told from these.

A finished file says it by names, sizes and a few contents, as there may be millions of files, and not by where they
lie: the same data give the same file wherever they are. A conversion that is not finished goes by where they lie.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from core import facts
from core.command import UserError
from core.files import file_sha256, parse_json
from core.person_parts import Facts

LEVELS = 3  # of folders that persons are looked for in, as in data/annotation_train/subject0000.csv


def differences(found: Facts, expected: Facts) -> list[str]:
    """Names of what differs; `options` and `fingerprints` are JSON, of which the names within are given."""

    def told(values: Facts) -> dict[str, object]:
        inside = [parse_json(str(values.get(key, "{}"))) for key in ("options", "fingerprints")]
        outside = {key: value for key, value in values.items() if key not in ("options", "fingerprints")}
        return {**outside, **inside[0], **inside[1]}

    return sorted(facts.differences(told(found), told(expected)))


def places(raw: Path | None, landmarks: Path | None) -> dict[str, str]:
    """Where the folders are, by option."""
    return {option: str(folder.resolve()) for option, folder in (("--raw", raw), ("--landmarks", landmarks)) if folder}


def fingerprints(raw: Path | None, landmarks: Path | None, persons: Sequence[str]) -> dict[str, str]:
    """What is in the folders, by option.

    Of raw data: the persons' files, and what is directly in their folders, by names and sizes. Of landmarks: what is
    directly in the folder, by name, and the first file of each, read, as these may be all of one size.
    """
    found = {}
    if raw:
        found["files in --raw"] = _sha256(
            line for entry in _of_persons(raw, set(persons), LEVELS) for line in _listing(entry)
        )
    if landmarks:
        found["files in --landmarks"] = _sha256(
            f"{entry.name} {_first_content(entry)}" for entry in _entries(landmarks)
        )
    return found


def check_landmarks(folder: Path, persons: Sequence[str]) -> None:
    """Raises UserError if a folder of landmarks has nothing of these persons."""
    found = [entry.name for entry in _entries(folder)]
    if not any(_is_of(name, set(persons)) for name in found):
        raise UserError(
            f"--landmarks: {folder} has nothing of the persons ({', '.join(persons[:3])}), found "
            f"{', '.join(found[:3])}. Name one with the folders that the images have in --raw."
        )


def _is_of(name: str, persons: set[str]) -> bool:
    """Whether a file or folder is of one of the persons, as p00, p00.mat and 1_A_DS_S are of p00 and 1."""
    return re.split(r"[._]", name, maxsplit=1)[0] in persons


def _entries(folder: str | Path) -> list[os.DirEntry]:
    """By name, without hidden ones; none where they may not be read."""
    try:
        return sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        return []


def _of_persons(folder: str | Path, persons: set[str], levels: int) -> Iterator[os.DirEntry]:
    for entry in _entries(folder):
        if _is_of(entry.name, persons):
            yield entry
        elif levels > 1 and entry.is_dir():
            yield from _of_persons(entry.path, persons, levels - 1)


def _listing(entry: os.DirEntry) -> Iterator[str]:
    for found in (entry, *_entries(entry.path)) if entry.is_dir() else (entry,):
        yield f"{found.name} {found.stat().st_size if found.is_file() else ''}"


def _first_content(entry: os.DirEntry) -> str:
    """Hash of a file, or of the first that is somewhere in a folder; '' if there is none."""
    if entry.is_file():
        return file_sha256(entry.path)
    return next((content for inside in _entries(entry.path) if (content := _first_content(inside))), "")


def _sha256(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()[:16]
