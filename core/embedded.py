"""The embedded data set, made where the configuration wants it and it is not there yet."""

from pathlib import Path

from core.command import UserError
from core.config_default import Config, is_set
from core.files import parse_json, require_writable
from core.hdf5 import open_hdf5, read_attributes
from core.owner import own_when_free
from core.tracking import say
from preprocess.synthetic.dataset import make_dataset, output_names
from preprocess.synthetic.samples import LOOKS
from preprocess.synthetic.together import finish_moving


def make_missing(config: Config, faces: bool) -> None:
    """Make the embedded data set if gazecapture_file is not there.

    faces: and the aligned faces, where gazecapture_aligned_file is set. Where another process makes it, wait for that.
    Raises UserError if its name is none of the embedded files', or another of them is there; OSError if the folder
    cannot be written.
    """
    path, aligned = Path(config.gazecapture_file), Path(config.gazecapture_aligned_file)
    wanted = [path, aligned] if faces and is_set(config.gazecapture_aligned_file) else [path]
    finish_moving(path.parent)
    if not all(file.exists() for file in wanted):
        size = _embedded_size("gazecapture_file", path, "GazeCapture_{}.h5")
        aligned_size = None
        if aligned in wanted:
            aligned_size = _embedded_size("gazecapture_aligned_file", aligned, "GazeCapture_aligned_{}.h5")
            if aligned.parent != path.parent:
                raise UserError(
                    f"gazecapture_aligned_file: to have it made, put it beside gazecapture_file, in {path.parent}."
                )
        require_writable(path.parent, "gazecapture_file")
        with own_when_free(path.parent):
            finish_moving(path.parent)
            if missing := [file for file in wanted if not file.exists()]:
                _make_data(config, missing[0], size, aligned_size)
                return
    _say_other_settings(config, path)


def _make_data(config: Config, missing: Path, size: int, aligned_size: int | None) -> None:
    folder = missing.parent
    present = [folder / name for name in output_names(size, aligned_size) if (folder / name).exists()]
    if present:
        raise UserError(f"{missing} is not there, but {present[0]} is. Remove it, or set another folder.")
    say(f"Making the embedded data set in {folder} ...")
    make_dataset(
        folder,
        persons=config.synthetic_persons,
        samples=config.synthetic_samples,
        seed=config.seed,
        image_size=size,
        aligned_size=aligned_size,
        variation=config.synthetic_variation,
        look=config.synthetic_look,
        group_size=config.synthetic_group_size,
        framing=config.synthetic_framing or None,
        still_heads=config.synthetic_still_heads,
    )


def _say_other_settings(config: Config, path: Path) -> None:
    """A sentence if the embedded data set that is there is not the one that would be made; it is used as it is."""
    with open_hdf5(path) as file:
        made = read_attributes(file)
    try:
        made |= parse_json(made.get("options", "{}"))
    except (TypeError, ValueError):  # not one of ours, and so none to compare
        return
    unsaid = {"look": "drawn", "group_size": 1, "framing": "exact", "still_heads": 0.0}
    made = unsaid | made
    own = LOOKS[config.synthetic_look]()
    wanted = {
        "persons": config.synthetic_persons,
        "samples": config.synthetic_samples,
        "variation": config.synthetic_variation,
        "look": config.synthetic_look,
        "group_size": config.synthetic_group_size or own.group_size,
        "framing": config.synthetic_framing or own.framing,
        "still_heads": config.synthetic_still_heads,
    }
    other = [
        f"synthetic_{name} {made[name]}, not {value}"
        for name, value in wanted.items()
        if name in made and made[name] != value
    ]
    if made.get("synthetic") and other:
        say(
            f"warning: {path} was made with {', '.join(other)}; it is used as it is. Remove its folder, or set another "
            "gazecapture_file, to have another made."
        )


def _embedded_size(key: str, path: Path, pattern: str) -> int:
    """The size in the name of a file of the embedded data set."""
    sizes = {pattern.format(size): size for size in (64, 128, 256)}
    if path.name not in sizes:
        raise UserError(f"{key}: {path} is not there; to have it made, call it one of {', '.join(sizes)}.")
    return sizes[path.name]
