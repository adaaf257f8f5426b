"""What all converters share: the file, resuming, workers, what is left out. Converters here only make numbers."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from core.command import UserError
from core.person_parts import PersonParts, write_whole
from dataset import GazeDataset, load_person_split
from preprocess import conversion as conversion_module
from preprocess.conversion import convert_dataset, left_out_file
from preprocess.face_patches import LeftOut
from preprocess.image_files import read_image
from tests.made_up import PERSONS, Numbers, converted, numbers
from tests.raw_trees import read_attributes, read_person, write_image

ROOT = Path(__file__).resolve().parent.parent
DATE = "2026-01-02T03:04:05Z"


@pytest.fixture(autouse=True)
def same_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion_module, "_now", lambda: DATE)


# The file.


def test_training_reads_what_was_converted(tmp_path: Path):
    out = converted(tmp_path)
    data = GazeDataset(out, default_is_bgr=True)
    assert data.person_ids == list(PERSONS) and len(data) == 4 * 36 and not data.is_bgr
    assert data.labels()[3] == pytest.approx(np.arange(4) / 100 + 0.004)  # the fourth is left out
    person = read_person(out, "p2")
    assert sorted(person) == ["labels", "name", "pixels"] and {len(data) for data in person.values()} == {36}
    assert person["name"][2:4] == ["p2/2", "p2/4"] and person["pixels"][3, 0, 0].tolist() == [4, 1, 2]
    assert person["labels"].dtype == np.float32 and person["labels"].shape == (36, 8)
    with h5py.File(out) as file:
        assert file["p1/pixels"].chunks == (1, 8, 8, 3) and file["p1/pixels"].compression is None


def test_the_attributes_say_what_it_is(tmp_path: Path):
    out = tmp_path / "out.h5"
    convert_dataset(numbers(tmp_path, facts={"intrinsics": "assumed"}), out, workers=1, persons=["p4", "p1"])
    found = read_attributes(out)
    assert found["dataset"] == "Numbers" and found["color_order"] == "RGB" and found["date"] == DATE
    assert (found["num_persons"], found["num_samples"], found["num_left_out"]) == (2, 72, 8)
    assert found["intrinsics"] == "assumed" and found["version"] == conversion_module.VERSION
    assert json.loads(found["options"]) == {"every": 1, "compression": None}
    assert json.loads(found["persons"]) == ["p1", "p4"] and json.loads(found["notes"]) == {"even": 72}
    assert json.loads(found["split"])["test"] == ["p4"] and len(found["split_sha256"]) == 64
    changed = tmp_path / "changed.h5"
    convert_dataset(numbers(tmp_path, split={"train": ["p1"]}), changed, workers=1, persons=["p1"])
    assert read_attributes(changed)["split_sha256"] != found["split_sha256"]


def test_what_is_left_out_is_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = converted(tmp_path, persons=["p1"])
    assert json.loads(read_attributes(out)["left_out"]) == {"no face found": 4}
    lines = left_out_file(out).read_text().splitlines()
    assert lines[:2] == ["person\tname\treason\tdetail", "p1\tp1/3\tno face found\t3 is odd"] and len(lines) == 5
    assert "4 no face found" in capsys.readouterr().out


def test_compressed_pixels_are_the_same(tmp_path: Path):
    plain, packed = converted(tmp_path), converted(tmp_path, "packed.h5", compression="lzf")
    with h5py.File(packed) as file:
        assert file["p1/pixels"].compression == "lzf"
    assert (read_person(plain, "p1")["pixels"] == read_person(packed, "p1")["pixels"]).all()


# Workers, kills, and running it again.


def test_two_workers_write_the_same_bytes_as_one(tmp_path: Path):
    one, two = converted(tmp_path), converted(tmp_path, "two.h5", workers=2)
    assert one.read_bytes() == two.read_bytes()
    assert left_out_file(one).read_bytes() == left_out_file(two).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_kill_the_same_bytes(tmp_path: Path, workers: int, capsys: pytest.CaptureFixture):
    (tmp_path / "p3").write_text("kill")
    code = (
        "from pathlib import Path; from tests.made_up import converted\n"
        f"if __name__ == '__main__': converted(Path({str(tmp_path)!r}), workers={workers})"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and not (tmp_path / "out.h5").exists()
    if workers == 2:  # only a worker was killed
        assert "ended without a word" in done.stderr
    assert (tmp_path / ".out.h5.parts" / "p1.h5").exists()
    (tmp_path / "p3").unlink()
    out = converted(tmp_path)
    assert "persons were converted before" in capsys.readouterr().out
    assert out.read_bytes() == converted(tmp_path, "whole.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["out.h5", "out.left_out.tsv", "script.py", "whole.h5", "whole.left_out.tsv"]
    )


def test_other_options_do_not_go_on_with_what_was_begun(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "p3").write_text("stop")
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        converted(tmp_path)
    (tmp_path / "p3").unlink()
    other = replace(numbers(tmp_path, options={"every": 2}), convert=Numbers(tmp_path, count=20))
    convert_dataset(other, tmp_path / "out.h5", workers=1)
    assert "begun with other values of every; starting over" in capsys.readouterr().out
    assert read_attributes(tmp_path / "out.h5")["num_samples"] == 4 * 18


def test_a_part_cut_short_by_a_power_cut_is_made_again(tmp_path: Path):
    (tmp_path / "p3").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        converted(tmp_path)
    (tmp_path / "p3").unlink()
    part = tmp_path / ".out.h5.parts" / "p2.h5"
    part.write_bytes(part.read_bytes()[:3000])
    assert converted(tmp_path).read_bytes() == converted(tmp_path, "whole.h5").read_bytes()


def test_a_file_that_is_there_is_left_alone_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = converted(tmp_path)
    before = out.stat().st_mtime_ns
    converted(tmp_path)
    assert "is there already" in capsys.readouterr().out and out.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="out.h5 exists.*--overwrite"):
        converted(tmp_path, persons=["p1"])
    converted(tmp_path, persons=["p1"], overwrite=True)
    assert read_attributes(out)["num_persons"] == 1


def test_another_split_is_another_recipe(tmp_path: Path):
    out = converted(tmp_path)
    with pytest.raises(UserError, match=r"out.h5 exists .*other split_sha256.; pass --overwrite"):
        convert_dataset(numbers(tmp_path, split={"test": ["p4"]}), out, workers=1)


# Raw data and landmarks that are not those it was made from.


def write_raw(root: Path, targets: str = "[1, 2]", landmarks: float = 0.0) -> dict[str, Path]:
    """Of the four persons; no sample is made of them."""
    for person in PERSONS:
        for folder in (root / "raw" / person / "frames", root / "landmarks" / person):
            folder.mkdir(parents=True)
        (root / "raw" / person / "targets.json").write_text(targets)
        np.save(root / "landmarks" / person / "0.npy", np.full((68, 2), landmarks))
    return {"raw": root / "raw", "landmarks": root / "landmarks"}


@pytest.mark.parametrize(("change", "option"), [({"targets": "[1, 22]"}, "--raw"), ({"landmarks": 1.0}, "--landmarks")])
def test_a_file_of_other_data_is_not_taken_for_the_one_asked_for(tmp_path: Path, change: dict, option: str):
    out = tmp_path / "out.h5"
    convert_dataset(numbers(tmp_path, **write_raw(tmp_path / "a")), out, workers=1)
    with pytest.raises(UserError, match=rf"out.h5 exists and was not .*other files in {option}.; pass --overwrite"):
        convert_dataset(numbers(tmp_path, **write_raw(tmp_path / "b", **change)), out, workers=1)


def test_the_same_data_elsewhere_give_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in "ab":
        convert_dataset(numbers(tmp_path, **write_raw(tmp_path / name)), tmp_path / f"{name}.h5", workers=1)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    (tmp_path / "b/raw/GazeCapture_128.h5").write_text("of no person")
    convert_dataset(numbers(tmp_path, raw=tmp_path / "b/raw", landmarks=tmp_path / "b/landmarks"), tmp_path / "a.h5")
    assert "a.h5 is there already" in capsys.readouterr().out


def test_persons_of_other_data_are_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "p3").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        convert_dataset(numbers(tmp_path, **write_raw(tmp_path / "a")), tmp_path / "out.h5", workers=1)
    (tmp_path / "p3").unlink()
    other = replace(numbers(tmp_path, **write_raw(tmp_path / "b")), convert=Numbers(tmp_path, count=20))
    convert_dataset(other, tmp_path / "out.h5", workers=1)
    assert "begun with other values of --landmarks, --raw; starting over" in capsys.readouterr().out
    assert read_attributes(tmp_path / "out.h5")["num_samples"] == 4 * 18


def test_landmarks_of_other_data_are_refused(tmp_path: Path):
    given = write_raw(tmp_path)
    for person in PERSONS:
        (given["landmarks"] / person).rename(given["landmarks"] / f"0{person}")
    with pytest.raises(UserError, match=r"--landmarks: .* has nothing of the persons .p1, p2, p3., found 0p1, 0p2"):
        convert_dataset(numbers(tmp_path, **given), tmp_path / "out.h5", workers=1)


# A disk without room.


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("limit", "done"), [(50_000, 0), (200_000, 4)])
def test_a_disk_that_fills_up_gives_one_line_and_the_same_command_goes_on(
    tmp_path: Path, workers: int, limit: int, done: int
):
    """Persons take 113 kB, the whole four times as much: it is too long for a person, or for the whole."""
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from preprocess.conversion import convert_dataset\n"
        "from tests.made_up import Numbers, numbers\n"
        "if __name__ == '__main__':\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        "    conversion = replace(numbers(folder), convert=Numbers(folder, size=32))\n"
        "    try:\n"
        f"        convert_dataset(conversion, folder / 'out.h5', workers={workers})\n"
        "    except OSError as error:\n"
        "        sys.exit(str(error))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, str(script)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert f"{tmp_path}/out.h5: File too large. The disk has " in run.stderr
    assert run.stderr.endswith(f"; {done} of 4 persons are done. Make room, and the same command goes on.\n")
    assert ("about 0.5 MB more are needed" in run.stderr) == (done == 4)
    parts = sorted(path.name for path in (tmp_path / ".out.h5.parts").iterdir())
    assert parts == [*(f"{person}.h5" for person in PERSONS[:done]), "recipe.json"]
    conversion = replace(numbers(tmp_path), convert=Numbers(tmp_path, size=32))
    for name in ("out.h5", "whole.h5"):
        convert_dataset(conversion, tmp_path / name, workers=1)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_room_for_the_whole_is_asked_for_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(20_000))
        full.setattr(PersonParts, "join", None)
        with pytest.raises(OSError, match=r"out.h5: No space left .* to join the persons. .* 4 of 4 persons are done"):
            converted(tmp_path)
    assert converted(tmp_path).read_bytes() == converted(tmp_path, "whole.h5").read_bytes()


def test_a_full_disk_does_not_cost_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The note on the recipe is not written anew, which would empty it."""
    (tmp_path / "p3").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        converted(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", lambda *_: pytest.fail("there is no room"))
        with pytest.raises(KeyboardInterrupt):
            converted(tmp_path)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own answer to Ctrl-C, also where the tests run in the background of a shell, which ignores it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


def test_ctrl_c_while_a_file_is_written_leaves_no_half_of_it(tmp_path: Path, interruptible: None):
    usual, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), write_whole(tmp_path / "a.h5") as (file, disk):
        os.kill(os.getpid(), signal.SIGINT)
        file["after"] = np.zeros(1000)  # an error in the middle of this would make HDF5 crash
        reached.append("after" in file)
        disk.check()
    assert reached == [True]
    assert not list(tmp_path.iterdir()) and signal.getsignal(signal.SIGINT) is usual


def test_memory_does_not_grow_with_the_samples(tmp_path: Path):
    peaks = []
    for count in (200, 2000):  # 32 x 32 x 3 bytes each: 0.6 and 6 MB
        tracemalloc.start()
        part = replace(numbers(tmp_path), convert=Numbers(tmp_path, count, size=32), persons=["p1"])
        convert_dataset(part, tmp_path / f"{count}.h5", workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1_500_000  # labels and names: 0.5 kB a sample


# Damage and mistakes.


def test_a_damaged_person_gives_one_line_and_the_others_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "p3").write_text("damaged")
    out = converted(tmp_path)
    assert capsys.readouterr().out.count("p3: person cannot be converted (no camera)\n") == 1
    assert GazeDataset(out).person_ids == ["p1", "p2", "p4"] and read_attributes(out)["num_left_out"] == 12
    assert "p3\tp3\tperson cannot be converted\tno camera\n" in left_out_file(out).read_text()
    (tmp_path / "p3").unlink()  # mended
    converted(tmp_path)
    assert "1 persons could not be converted, see" in capsys.readouterr().out
    assert len(GazeDataset(converted(tmp_path, overwrite=True)).person_ids) == 4


def test_a_person_mended_after_a_kill_is_converted(tmp_path: Path):
    (tmp_path / "p3").write_text("damaged")
    (tmp_path / "p4").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        converted(tmp_path)
    for trouble in ("p3", "p4"):
        (tmp_path / trouble).unlink()
    assert converted(tmp_path).read_bytes() == converted(tmp_path, "whole.h5").read_bytes()


def test_a_person_without_samples_is_no_group(tmp_path: Path, capsys: pytest.CaptureFixture):
    def some(person: str):
        return [] if person == "p2" else Numbers(tmp_path, 2)(person)

    convert_dataset(replace(numbers(tmp_path), convert=some), tmp_path / "out.h5", workers=1)
    assert "p2: person without samples (nothing there)" in capsys.readouterr().out
    assert "p2" not in GazeDataset(tmp_path / "out.h5").person_ids


def test_without_any_sample_there_is_no_file_but_the_reasons(tmp_path: Path):
    none = replace(numbers(tmp_path), convert=lambda person: [LeftOut(person, "no face found")])
    with pytest.raises(UserError, match=r"no sample could be converted; .*out\.left_out\.tsv says why"):
        convert_dataset(none, tmp_path / "out.h5", workers=1)
    assert not (tmp_path / "out.h5").exists() and "no face found" in left_out_file(tmp_path / "out.h5").read_text()


def test_a_file_that_is_not_replaced_keeps_its_list_of_what_was_left_out(tmp_path: Path):
    out = converted(tmp_path)
    before = out.read_bytes(), left_out_file(out).read_bytes()
    none = replace(numbers(tmp_path), convert=lambda person: [LeftOut(person, "too dark")])
    with pytest.raises(UserError, match=r"no sample .*out\.failed\.left_out\.tsv says why"):
        convert_dataset(none, out, workers=1, overwrite=True)
    assert (out.read_bytes(), left_out_file(out).read_bytes()) == before
    assert "too dark" in (tmp_path / "out.failed.left_out.tsv").read_text()


def test_persons_are_not_counted_among_samples_left_out(tmp_path: Path, capsys: pytest.CaptureFixture):
    def some(person: str):
        return [LeftOut(f"{person}/0", "no face found")] if person != "p1" else Numbers(tmp_path, 2)(person)

    convert_dataset(replace(numbers(tmp_path), convert=some), tmp_path / "out.h5", workers=1)
    assert read_attributes(tmp_path / "out.h5")["num_left_out"] == 3
    said = capsys.readouterr().out
    assert "left_out.tsv: 3 no face found.\nPersons left out: 3 person without samples.\n" in said


@pytest.mark.parametrize("person", ["left_out", "samples", "пятница тринадцатое августа две тысячи двадцать первого"])
def test_a_person_may_have_any_name(tmp_path: Path, person: str):
    convert_dataset(replace(numbers(tmp_path), persons=["p1", person]), tmp_path / "out.h5", workers=1)
    assert GazeDataset(tmp_path / "out.h5").person_ids == sorted(["p1", person])
    assert f"\n{person}\t{person}/3\tno face found\t" in left_out_file(tmp_path / "out.h5").read_text()


def test_many_damaged_samples_of_a_person_give_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture):
    def damaged(person: str):
        yield from Numbers(tmp_path, 1)(person)
        yield from (LeftOut(f"{i}.jpg", "no such image", damaged=True) for i in range(9))

    convert_dataset(replace(numbers(tmp_path), convert=damaged, persons=["p1"]), tmp_path / "out.h5", workers=1)
    said = capsys.readouterr().out
    assert said.count("jpg: no such image") == 5 and "p1: and 4 more like these" in said


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="--persons: 1 not in the data .p9.; there are 4"):
        converted(tmp_path, persons=["p1", "p9"])
    with pytest.raises(UserError, match="--workers: found 0"):
        converted(tmp_path, workers=0)
    with pytest.raises(UserError, match="no persons found"):
        convert_dataset(replace(numbers(tmp_path), persons=[]), tmp_path / "out.h5")


def test_where_no_file_can_be_is_said_before_the_work(tmp_path: Path):
    never = replace(numbers(tmp_path), convert=None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"--out: {tmp_path} is a folder; name a file, such as"):
        convert_dataset(never, tmp_path, workers=1, overwrite=True)
    with pytest.raises(UserError, match=f"--out: .*/file/a cannot be written .{tmp_path}/file is not a .*: Not a dir"):
        convert_dataset(never, tmp_path / "file" / "a" / "out.h5", workers=1)
    with pytest.raises(UserError, match="file exists .*it is no such file, or damaged.*--overwrite"):
        convert_dataset(never, tmp_path / "file", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_file_gets_its_name_after_all_that_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Or after a kill between the two the same command would say that it is there, and never write the split."""
    own = numbers(tmp_path, split_file="split.json")
    with monkeypatch.context() as killed:
        killed.setattr(PersonParts, "finish", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert_dataset(own, tmp_path / "out.h5", workers=1)
    assert (tmp_path / "split.json").exists() and (tmp_path / "out.left_out.tsv").exists()
    assert not (tmp_path / "out.h5").exists()
    convert_dataset(own, tmp_path / "out.h5", workers=1)
    assert (tmp_path / "out.h5").exists()


def test_a_published_split_that_lies_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture):
    own = numbers(tmp_path, split_file="split.json")
    convert_dataset(own, tmp_path / "out.h5", workers=1)
    assert load_person_split(tmp_path / "split.json", "test") == ["p4"]
    (tmp_path / "split.json").write_text('{"test": ["p1"]}')
    convert_dataset(own, tmp_path / "again.h5", workers=1)
    assert load_person_split(tmp_path / "split.json", "test") == ["p1"]
    assert "holds another split and was kept" in capsys.readouterr().out


# Images.


def test_an_image_is_read_as_it_is_stored(tmp_path: Path):
    picture = np.zeros((6, 10, 3), np.uint8)
    picture[:, 5:] = (200, 100, 0)
    write_image(tmp_path / "a.png", picture)
    assert (read_image(tmp_path / "a.png", "a") == picture).all()


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (None, "no such image", ""),
        (b"", "image cannot be read", "empty"),
        (b"\xff\xd8 but no more", "image cannot be read", "cut short"),
        (b"hello", "image cannot be read", "no image"),
    ],
)
def test_what_is_no_image_is_left_out(tmp_path: Path, content: bytes | None, reason: str, detail: str):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    found = read_image(tmp_path / "a.jpg", "p/a.jpg")
    assert found.name == "p/a.jpg" and found.reason == reason and detail in found.detail and found.damaged


def test_an_image_said_to_be_larger_than_opencv_reads_is_left_out(tmp_path: Path):
    write_image(tmp_path / "a.png", np.zeros((6, 10, 3), np.uint8))
    large = bytearray((tmp_path / "a.png").read_bytes())
    large[16:24] = struct.pack(">II", 60_000, 60_000)
    large[29:33] = struct.pack(">I", zlib.crc32(large[12:29]))
    (tmp_path / "a.png").write_bytes(large + bytes(11 << 20))  # as much as so many pixels of one colour may take
    found = read_image(tmp_path / "a.png", "a")
    assert found.reason == "image cannot be read" and "more than 200000000 pixels" in found.detail and found.damaged


def test_a_jpeg_cut_short_is_not_taken_for_a_grey_face(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    write_image(tmp_path / "a.jpg", noise)
    whole = (tmp_path / "a.jpg").read_bytes()
    assert read_image(tmp_path / "a.jpg", "a").shape == (64, 64, 3)
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    assert "cut short" in read_image(tmp_path / "a.jpg", "a").detail


def test_workers_do_not_load_torch():
    modules = "preprocess.datasets.gazecapture, preprocess.datasets.mpiifacegaze"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
