"""A folder of photographs: each is redirected, and what cannot be is said and counted."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.command import DONE, FAILED, UNUSABLE, UserError
from core.files import require_writable
from core.redirection.photo_files import FORMATS
from core.redirection.photo_job import PhotoJob
from core.tracking import say
from preprocess.datasets.images import find_photographs


def plan_folder(folder: Path, out: Path) -> list[tuple[Path, Path]]:
    """Photographs of a folder and of those in it, each with the file to write. Says what is passed over.

    Raises UserError where there are none, for a folder that cannot be written, and for two that would be one file.
    """
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise UserError(f"-o: {out} is in the folder of the photographs; name another folder.")
    if out.is_file():
        raise UserError(f"-o: {out} is a file; a folder of photographs is written to a folder.", remedy="Name another.")
    require_writable(out, "-o")
    persons, others = find_photographs(folder)
    names = sorted(name for found in persons.values() for name in found)
    if others:
        passed = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        say(f"{folder}: {others.total()} files are passed over, no photographs by name: {passed}.")
    files = [(folder / name, out / _written(name)) for name in names]
    twice = [path for path, times in Counter(path for _, path in files).items() if times > 1]
    if twice:
        raise UserError(f"{folder}: two photographs would both be written to {twice[0]}; rename one of them.")
    return files


def redirect_folder(job: PhotoJob, files: Iterable[tuple[Path, Path]]) -> tuple[int, list[dict[str, Any]]]:
    """A line each. Returns the exit code and a record each.

    0 where all was done, 1 where some photographs were not, 2 where none was. Raises OSError where nothing can be
    written any more.
    """
    records, failed = [], 0
    for source, out in files:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            lines, record = job.run(source, out)
            say(f"{source}: {'; '.join(lines)}.")
        except UserError as error:
            failed += 1
            record = {"source": str(source), "error": str(error)}
            say(str(error) if str(source) in str(error) else f"{source}: {error}")
        records.append(record)
    not_done = f"; {failed} could not be" * bool(failed)
    say(f"Redirected {len(records) - failed} of {len(records)} photographs{not_done}.")
    return UNUSABLE if failed == len(records) else FAILED if failed else DONE, records


def _written(name: str) -> str:
    """A format that is not written becomes PNG; the old suffix stays in the name, so that two keep apart."""
    return name if Path(name).suffix.lower() in FORMATS else f"{name}.png"
