"""Opening HDF5 files: what keeps one from being read is told apart, and nothing that is good is called damaged."""

import errno
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader

from core.command import UserError, sentence
from core.hdf5 import (
    DamagedFile,
    layout_problems,
    open_hdf5,
    read_attribute,
    read_attributes,
    refusal,
    require_readable,
)
from core.person_parts import PersonParts, is_whole, part_file, write_whole
from dataset import GazeDataset, knows_gaze, list_persons, load_person_split
from dataset_augmented import TABLES, RedirectedDataset, RedirectedWriter, is_complete
from preprocess.__main__ import main
from preprocess.inspect.page import make_page
from preprocess.inspect.verify import verify
from preprocess.rechunk import convert
from tests.made_up import converted
from tests.tiny import write_dataset

ROOT = Path(__file__).resolve().parent.parent
UNKNOWN = 305  # of the numbers kept for tests
ADVICE_TO_REPLACE = ("ownload", "overwrite", "emove", "write it anew", "Re-run")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process has the file open for writing."""
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline()
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "gc.h5", persons=2, samples=3, size=16)


def refused(action: Callable[[], object]) -> str:
    """The message of what is no damage."""
    with pytest.raises(UserError) as raised:
        action()
    assert not isinstance(raised.value, DamagedFile)
    assert not any(word in str(raised.value) for word in ADVICE_TO_REPLACE), raised.value
    return str(raised.value)


# Open elsewhere


@pytest.mark.parametrize(
    "read",
    [
        GazeDataset,
        RedirectedDataset,
        list_persons,
        knows_gaze,
        verify,
        lambda path: load_person_split(path, "train"),
        lambda path: is_complete(path, {}),
        lambda path: converted(path.parent, path.name),
        lambda path: is_whole(path, lambda _: True),
    ],
)
def test_a_file_that_another_program_writes_is_not_called_damaged(path: Path, read: Callable[[Path], object]) -> None:
    with held(path):
        message = refused(lambda: read(path))
    assert message.startswith(f"{path}: is open elsewhere") and "run the same command again" in message
    assert len(GazeDataset(path)) == 6


@pytest.mark.parametrize("command", [["verify"], ["report"], ["convert", "--out", "new.h5"]])
def test_commands_say_so_and_leave_it_alone(
    path: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    before = path.read_bytes()
    with held(path):
        assert main([command[0], str(path), *command[1:]]) == 2
    assert "is open elsewhere" in capsys.readouterr().err
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_person_that_is_done_and_open_elsewhere_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "p3").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        converted(tmp_path)
    part = tmp_path / ".out.h5.parts" / "p2.h5"
    before = part.read_bytes()
    with held(part):
        refused(lambda: converted(tmp_path))
    assert part.read_bytes() == before


# No permission, no locks, other troubles of the machine


@pytest.mark.parametrize(
    ("code", "text", "found"),
    [
        (errno.EACCES, "unable to open file", "you may not read it .Permission denied.. Have its owner"),
        (errno.EPERM, "unable to open file", "you may not read it .Operation not permitted"),
        (errno.EAGAIN, "unable to lock file", "is open elsewhere"),
        (errno.ENOLCK, "unable to lock file", "its file system has no locks .* Set HDF5_USE_FILE_LOCKING=FALSE"),
        (errno.EOPNOTSUPP, "unable to lock file", "its file system has no locks .* Set HDF5_USE_FILE_LOCKING=FALSE"),
        (errno.EIO, "file read failed", "Input/output error.* no fault of the file"),
        (None, "file is already open for write", "is open elsewhere.*h5clear -s"),
    ],
)
def test_what_the_machine_refuses_is_told_apart(
    path: Path, code: int | None, text: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(text) if code is None else OSError(code, text)
    monkeypatch.setattr(h5py, "File", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match=found):
        open_hdf5(path)
    refused(lambda: open_hdf5(path))
    refused(lambda: GazeDataset(path))
    refused(lambda: is_whole(path, lambda _: True))


def test_an_error_while_reading_is_told_apart_as_well(path: Path) -> None:
    stale = refusal(path, OSError(errno.ESTALE, "file read failed"), "pixels cannot be read")
    assert not isinstance(stale, DamagedFile) and "pixels cannot be read (Stale file handle)" in str(stale)
    assert isinstance(refusal(path, OSError("wrong checksum"), "pixels cannot be read"), DamagedFile)


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "is a folder, expected an HDF5 file" in refused(lambda: open_hdf5(tmp_path))
    with pytest.raises(UserError, match="none.h5: no such file. Correct the path"):
        open_hdf5(tmp_path / "none.h5")
    with pytest.raises(UserError, match="none.h5: no such file. Ask for it."):
        open_hdf5(tmp_path / "none.h5", missing="Ask for it.")


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", b"\x89HDF\r\n\x1a\n and no more"])
def test_only_damage_is_called_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(DamagedFile, match="a.h5: cannot be read as HDF5 .*Re-download it"):
        open_hdf5(tmp_path / "a.h5")


def test_damage_that_a_loader_process_meets_is_said_in_one_sentence(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        pixels = file["00001/pixels"][()]
        del file["00001/pixels"]
        data = file.create_dataset("00001/pixels", data=pixels, chunks=(1, *pixels.shape[1:]), compression="gzip")
        chunk = data.id.get_chunk_info(2)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(chunk.size))
    loader = DataLoader(GazeDataset(path), batch_size=1, num_workers=1)
    with pytest.raises(DamagedFile) as raised:
        list(loader)
    assert sentence(raised.value).startswith(f"{path}: person '00001': pixels of sample 2 cannot be read (")


# Filters


def pack(path: Path, key: str, filter_mask: int = 0) -> None:
    """The data set as if packed by a filter; filter_mask: 1 for chunks that were left unpacked."""
    with h5py.File(path, "r+") as file:
        values = file[key][()]
        del file[key]
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_chunk((1, *values.shape[1:]))
        options.set_filter(UNKNOWN, h5py.h5z.FLAG_OPTIONAL, (0,))
        space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
        data = h5py.h5d.create(file.id, key.encode(), kind, space, options)
        for i, value in enumerate(values):
            data.write_direct_chunk((i,) + (0,) * (values.ndim - 1), value.tobytes(), filter_mask)


def test_a_filter_that_is_not_installed_is_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(path, "00001/pixels")
    for read in (GazeDataset, verify):
        found = f"{path}: /00001/pixels is packed by filter {UNKNOWN}, which is not installed. Install it"
        assert refused(lambda read=read: read(path)).startswith(found)
    assert main(["verify", str(path)]) == main(["convert", str(path), "--out", str(path.with_name("new.h5"))]) == 2
    assert capsys.readouterr().err.count("pip install hdf5plugin") == 2
    assert list(path.parent.iterdir()) == [path]
    assert len(GazeDataset(path, persons=["00000"])) == 3


def test_a_filter_that_was_left_out_is_not_asked_for(path: Path) -> None:
    expected = GazeDataset(path)[4]["image"]
    pack(path, "00001/pixels", filter_mask=1)
    assert (GazeDataset(path)[4]["image"] == expected).all()


def test_a_loader_process_asks_for_the_filter_itself(path: Path) -> None:
    data = GazeDataset(path)  # before it is packed
    pack(path, "00001/pixels")
    assert f"packed by filter {UNKNOWN}" in refused(lambda: data[4])


def test_filters_of_hdf5plugin_are_known_once_it_is_installed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(path, "00001/pixels")
    (tmp_path / "hdf5plugin.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda _: "hdf5plugin" in sys.modules)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)  # so that it is forgotten at the end
    del sys.modules["hdf5plugin"]
    with h5py.File(path) as file:
        require_readable(file["00001/pixels"])


# What HDF5 reads for ever


def spoil_strings(path: Path) -> None:
    """The free part of the heap that the attributes' strings are in says that it is 0 bytes long."""
    content = bytearray(path.read_bytes())
    at, end = content.index(b"GCOL") + 16, content.index(b"GCOL") + 4096
    while int.from_bytes(content[at : at + 2], "little"):
        at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
    content[at:end] = bytes(end - at)
    path.write_bytes(content)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_that_hdf5_would_read_for_ever_is_refused(path: Path, libver: str) -> None:
    """In another process: HDF5 answers neither Ctrl-C nor a time limit."""
    with h5py.File(path) as old, h5py.File(path.with_name("new.h5"), "w", libver=libver) as new:
        for person in old:
            old.copy(person, new)
        new.attrs.update({"color_order": "RGB", "split": '{"train": ["00000"]}'})
    path = path.with_name("new.h5")
    assert verify(path)[1].attributes["split"] == '{"train": ["00000"]}'
    spoil_strings(path)
    code = (
        "import sys; from pathlib import Path; from tests.test_hdf5 import *\n"
        "path = Path(sys.argv[1])\n"
        "for read in (GazeDataset, knows_gaze, verify, RedirectedDataset, lambda p: load_person_split(p, 'train')):\n"
        "    with pytest.raises(DamagedFile, match='the strings of its attributes are damaged'):\n"
        "        read(path)\n"
        "assert not is_whole(path, lambda _: True)\n"
        "sys.exit(main(['verify', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=100, capture_output=True)
    assert done.returncode == 2, done.stderr


def with_many_attributes(path: Path) -> Path:
    """So many that they lie in a place of their own."""
    with h5py.File(path) as old, h5py.File(path.with_name("many.h5"), "w", libver="latest") as new:
        for person in old:
            old.copy(person, new)
        new.attrs.update({"color_order": "RGB"} | {f"note{i}": f"text {i}" for i in range(12)})
    return path.with_name("many.h5")


def test_attributes_in_a_place_of_their_own_are_read_elsewhere_first(path: Path) -> None:
    path = with_many_attributes(path)
    assert verify(path)[1].attributes["note11"] == "text 11"
    spoil_strings(path)
    start = time.monotonic()
    with pytest.raises(DamagedFile, match="its attributes are damaged: HDF5 does not come to their end"):
        GazeDataset(path)
    assert time.monotonic() - start < 30  # 2 s of work, on a machine that others use as well


def test_a_string_that_is_longer_than_the_file_is_refused_in_little_memory(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["split"] = "x" * 777
    content = bytearray(path.read_bytes())
    at = content.index((777).to_bytes(4, "little") + content.rindex(b"GCOL").to_bytes(8, "little"))
    content[at : at + 4] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFile, match="its attributes are damaged"):
        GazeDataset(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def test_ordinary_files_start_no_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", None)
    GazeDataset(path)
    with pytest.raises(UserError, match="not callable"):
        GazeDataset(with_many_attributes(path))


# The layout


def test_the_layout_says_all_that_is_wrong(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("p")
        assert layout_problems(file.attrs, TABLES)[0].startswith("is no group, expected a group with the data sets")
        assert layout_problems(group, TABLES)[0].startswith("no data set 'image', 'gaze', 'head', 'real', expected")
        group["image"], group["gaze"] = np.zeros((3, 3, 8, 9), np.uint8), np.zeros((3, 2), int)
        group["head"], group["real"] = np.zeros((3, 2)), np.zeros(2)
        assert layout_problems(group, TABLES) == [
            "image is uint8 of shape (3, 3, 8, 9), expected uint8 or floats (M, 3, S, S)",
            "gaze is int64 of shape (3, 2), expected floats (M, 2)",
        ]


# A file a person


FACTS = {"seed": 1, "limit": float("inf")}


def test_persons_that_an_earlier_revision_wrote_are_gone_on_with(tmp_path: Path) -> None:
    folder, odd = tmp_path / ".r.h5.parts", "пятница тринадцатое"  # its quoted name, of 107 letters, was not hashed
    folder.mkdir()
    (folder / "recipe.json").write_text('{\n  "seed": 1,\n  "limit": Infinity\n}')
    for person in ("a b", odd):
        with h5py.File(folder / f"{quote(person, safe='')}.h5", "w") as file:
            for name in TABLES:
                file[f"{person}/{name}"] = np.zeros((2, 3, 8, 8) if name == "image" else (2,))
    writer = RedirectedWriter(tmp_path / "r.h5", FACTS)
    assert writer.has("a b") and writer.has(odd) and not writer.has("c")
    assert len(part_file(tmp_path, odd).stem) == 64  # a new one is


def test_notes_that_cannot_be_read_do_not_cost_the_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = PersonParts(tmp_path / "r.h5", FACTS)
    parts.file("a").write_bytes(b"done")

    def forbidden(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as context:
        context.setattr("core.person_parts.read_json", forbidden)
        assert "recipe.json: cannot be read (Permission denied)" in refused(lambda: PersonParts(parts.out, FACTS))
    assert PersonParts(parts.out, FACTS).file("a").exists()


def test_a_full_disk_gives_an_error_and_no_file_and_no_crash(tmp_path: Path) -> None:
    code = (
        "import resource, sys; import numpy as np; from pathlib import Path\n"
        "from dataset_augmented import RedirectedWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "writer = RedirectedWriter(Path(sys.argv[1]), {'seed': 1})\n"
        "small = dict(gaze=np.zeros((4, 2)), head=np.zeros((4, 2)), real=np.ones(4))\n"
        "try:\n"
        "    for person in ('a', 'b', 'c'):\n"
        "        with writer.person(person) as file:\n"
        "            for _ in range(1 if person == 'a' else 20):\n"
        "                file.append(image=np.zeros((4, 3, 32, 32), np.uint8), **small)\n"
        "except OSError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "r.h5")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"{tmp_path}/r.h5: cannot be written (File too large). At least 0.")
    assert done.stderr.endswith(" MB left. Make room or choose another folder; the same command goes on.\n")
    assert sorted(path.name for path in (tmp_path / ".r.h5.parts").iterdir()) == ["a.h5", "recipe.json"]
    assert RedirectedWriter(tmp_path / "r.h5", {"seed": 1}).has("a")


# Handlers: PyTorch's, of a process that died; any command's, of a scheduler; a training's, of a second request.
HANDLERS = {
    "SIGCHLD": "def handler(*_): raise RuntimeError('DataLoader worker is killed')",
    "SIGTERM": "handler = signal.default_int_handler",
    "SIGUSR1": "def handler(*_): raise KeyboardInterrupt",
}
WRITES = """import os, signal, sys; import numpy as np; from pathlib import Path
from core.disk import Disk; from core.person_parts import write_whole
{handler}
signal.signal(signal.{name}, handler)
count, usual = iter(range(10**6)), Disk.write
def write(self, data):
    if next(count) in ({nth}, {nth} + 1): os.kill(os.getpid(), signal.{name})
    return usual(self, data)
Disk.write = write
try:
    with write_whole(Path(sys.argv[1])) as (file, disk):
        for i in range(40):
            file.create_dataset(str(i), data=np.full((20, 99), i, np.uint8), chunks=(1, 99))
            disk.check()
except (RuntimeError, KeyboardInterrupt) as error:
    sys.exit(f"{{error!r}} {{signal.getsignal(signal.{name}) is handler}}")
"""


@pytest.mark.parametrize(("name", "nth"), [("SIGCHLD", 0), ("SIGCHLD", 400), ("SIGTERM", 3), ("SIGUSR1", 100)])
def test_a_signal_while_a_file_is_written_is_an_error_and_no_crash(tmp_path: Path, name: str, nth: int) -> None:
    """Handlers raise wherever Python is, and HDF5 ended the process where that was in its midst."""
    code = WRITES.format(handler=HANDLERS[name], name=name, nth=nth)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.h5")], cwd=ROOT, capture_output=True, text=True
    )
    error = "RuntimeError('DataLoader worker is killed')" if name == "SIGCHLD" else "KeyboardInterrupt()"
    assert (done.returncode, done.stderr) == (1, f"{error} True\n")
    assert not list(tmp_path.iterdir())


def test_the_death_of_a_process_is_told_at_once_where_hdf5_is_not_at_work(tmp_path: Path) -> None:
    """A loader that waits for what will not come must be told; and what it says of it is what counts."""

    def dead(*_: object) -> None:
        raise RuntimeError("DataLoader worker is killed")

    before = signal.signal(signal.SIGCHLD, dead)
    try:
        with pytest.raises(RuntimeError, match="timed out"), write_whole(tmp_path / "x.h5") as (file, _):
            file["x"] = np.zeros(1000)
            try:
                signal.raise_signal(signal.SIGCHLD)
            except RuntimeError as error:
                raise RuntimeError("timed out") from error
        assert signal.getsignal(signal.SIGCHLD) is dead and not list(tmp_path.iterdir())
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_new_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"), write_whole(tmp_path / "a.h5") as (file, _):
        file["x"] = np.zeros(1000)
        raise RuntimeError("half way")
    assert not list(tmp_path.iterdir())
    with write_whole(tmp_path / "a.h5") as (file, _):
        assert not (tmp_path / "a.h5").exists()
        file["x"] = np.arange(1000)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][999] == 999


# Attributes of other programs


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (np.bool_(False), False),
        (np.array([128]), 128),
        (np.array(["RGB"], dtype=object), "RGB"),
        (np.bytes_(b"BGR"), "BGR"),
        (np.array([1, 2]), "array([1, 2])"),
        (h5py.Empty("f4"), "Empty(dtype=dtype('<f4'))"),
    ],
)
def test_attributes_are_read_as_plain_values_or_as_text(stored: object, read: object, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["x"] = stored
        assert read_attributes(file)["x"] == read_attribute(file, "x") == read
        assert type(read_attribute(file, "x")) is type(read)


def test_an_array_where_gaze_known_is_to_be_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["gaze_known"] = [1, 0]
    with pytest.raises(UserError, match=r"gaze_known is 'array\(\[1, 0\]\)', expected true or false"):
        knows_gaze(path)


def test_an_array_where_the_colour_order_is_to_be_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["color_order"] = [1, 0]
    with pytest.raises(UserError, match=r"color_order is 'array\(\[1, 0\]\)', expected"):
        GazeDataset(path)


# Data sets without elements


@pytest.mark.parametrize("name", ["pixels", "labels"])
def test_a_null_dataspace_is_a_problem_of_the_layout(name: str, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        person = sorted(file)[0]
        del file[person][name]
        file[person][name] = h5py.Empty("u1")
    with pytest.raises(UserError, match=f"{name} are without any elements"):
        GazeDataset(path)
    assert f"{name} are without any elements" in verify(path)[0][0].found


def test_images_without_pixels_are_a_problem_of_the_layout(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        person = sorted(file)[0]
        del file[person]["pixels"]
        file[person]["pixels"] = np.zeros((3, 0, 0, 3), np.uint8)
    with pytest.raises(UserError, match=r"pixels are of shape \(3, 0, 0, 3\), expected at least 1"):
        GazeDataset(path)
    assert "pixels are of shape (3, 0, 0, 3)" in verify(path)[0][0].found


def test_convert_copies_another_data_set_without_elements(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for group in file.values():
            group["more"] = h5py.Empty("f4")
    convert([path], tmp_path / "out.h5", progress=False)
    with h5py.File(tmp_path / "out.h5") as file:
        assert all(group["more"].shape is None for group in file.values())


def test_a_mistake_of_the_code_is_not_called_damage(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(GazeDataset, "_inspect", mistaken)
    monkeypatch.setattr("preprocess.inspect.page.face", mistaken)
    with pytest.raises(KeyError, match="a mistake"):
        GazeDataset(path)
    with pytest.raises(KeyError, match="a mistake"):
        make_page(path, tmp_path / "x.html")
