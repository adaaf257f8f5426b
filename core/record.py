"""What a run writes down of itself when it starts: the configuration, the versions, the source."""

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from core.command import without_places
from core.config_default import Config
from core.files import atomic_write, clean_run, write_json, write_text
from core.runtime import REPOSITORY, device_name, library_versions
from core.tracking import say

SOURCE_FILES = ("*.py", "*.txt", "*.md", "*.toml", "config/*.json", "core/**/*.py", "models/*.py", "preprocess/**/*.py")
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # what a zip can date


def record_start(folder: Path, config: Config, facts: Mapping[str, object], start: int, device: torch.device) -> None:
    """Write config, environment and source into the run folder, beside those of earlier starts."""
    folder.mkdir(parents=True, exist_ok=True)
    clean_run(folder)
    part = "_evaluation" if config.skip_training else f"_from_{start}" if start else ""
    versions = {
        "command": [without_places(word) for word in sys.argv],
        "code_revision": facts["code_revision"],
        "libraries": library_versions(),
    }
    versions |= {"threads": torch.get_num_threads(), "device": device_name(device)}  # on which rounding depends
    write_text(folder / f"config{part}.json", config.to_json())
    write_json(folder / f"environment{part}.json", versions)
    snapshot(folder / f"source{part}.zip", folder)


def snapshot(path: Path, run_folder: Path) -> None:
    """Zip of this repository's code and configuration, never of the run folder.

    It documents the run and must not stop it: what cannot be read or written is said.
    """
    left_out: list[str] = []
    try:
        with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(file for pattern in SOURCE_FILES for file in REPOSITORY.glob(pattern)):
                problem = _add(archive, file, run_folder)
                left_out += [f"{file.relative_to(REPOSITORY)} ({problem})"] * bool(problem)
    except OSError as error:
        say(f"warning: the source was not kept: {error}.")
    if left_out:
        say(f"warning: not in {path.name}: {', '.join(left_out)}.")


def _add(archive: zipfile.ZipFile, file: Path, run_folder: Path) -> str:
    """Add a file to the zip; why it could not be, as a dangling link or an editor's lock file, or ''."""
    try:
        if file.resolve().is_relative_to(run_folder.resolve()):
            return ""
        if not file.is_file():
            return "no file"
        content = file.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        return getattr(error, "strerror", None) or str(error)
    name = file.relative_to(REPOSITORY).as_posix().encode("utf-8", "backslashreplace").decode()
    # Always the same date: a file may be older than a zip can say, and no date matters.
    archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content, zipfile.ZIP_DEFLATED)
    return ""


def settings_of(stored: Mapping[str, object]) -> dict[str, object]:
    """The configuration that a checkpoint was written with; {} of a published one, which names none."""
    return json.loads(str(stored.get("config", "{}")))
