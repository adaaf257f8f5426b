"""The page: a photograph is seen once and redirected often, the download is the command's, mistakes get a sentence.

The last test drives it in a browser: `python -m pytest -m slow -n 0 tests/test_page.py`, where chromium is installed
and, beside requirements-page.txt, playwright.
"""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

import core.page.choices as choices_room
import core.page.command as page_command
import core.page.sitting as sitting_room
import core.redirection.faces as faces_room
import demo
from core.command import UserError
from core.page import told
from core.page.choices import find_choices
from core.page.sitting import SHOWN, Sitting, open_for_page, sit, smaller
from core.page.told import line, table
from core.page.walk import walk_angles, walk_frames
from core.redirection.edit import Edit
from core.redirection.load import Loaded
from core.redirection.photo import redirect_photo
from core.redirection.photo_files import open_photo
from tests import photos
from tests.raw_trees import write_image
from tests.tiny import tiny_flow, tiny_redirector

ROOT = Path(__file__).resolve().parent.parent
ASKED = Edit(gaze=(5, 15), head=(0, -10))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return photos.photograph(photos.make_person())


@pytest.fixture
def tree(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """in.png, and a run of each redirector."""
    tree = photos.make_tree(tmp_path, pixels, monkeypatch)
    for kind in ("st-ed", "redirtrans", "st-ed-flow"):
        (tree / kind / "config.json").write_text(json.dumps({"redirector": kind}))
    return tree


@pytest.fixture
def loaded() -> Loaded:
    return photos.loaded(tiny_flow())


@pytest.fixture
def sitting(tree: Path, loaded: Loaded) -> Sitting:
    return sit(open_for_page(tree / "in.png"), loaded)


@pytest.mark.parametrize("redirector", [tiny_flow, tiny_redirector], ids=["pixels", "patch"])
def test_what_is_downloaded_is_what_the_command_makes(tree: Path, redirector):
    model = photos.loaded(redirector())
    photo = open_for_page(tree / "in.png")
    assert np.array_equal(sit(photo, model).whole(ASKED).pixels, redirect_photo(model, tree / "in.png", ASKED).pixels)


def test_a_face_is_encoded_once_for_any_number_of_edits(sitting: Sitting, loaded: Loaded, monkeypatch):
    def never(image: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(loaded.redirector, "encode", never)
    first, second = (sitting.shown(Edit(head=(0, yaw))).pixels for yaw in (10, -10))
    assert not np.array_equal(first, second)


def test_a_large_photograph_is_shown_smaller_with_the_same_change(
    tree: Path, pixels: np.ndarray, loaded: Loaded, monkeypatch
):
    write_image(tree / "large.png", cv2.resize(pixels, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))
    found = [SimpleNamespace(landmarks=face.landmarks * 3 + 1) for face in faces_room.search(pixels).faces]
    monkeypatch.setattr(faces_room, "search", lambda image: SimpleNamespace(faces=found, unmeasured=[]))
    sitting = sit(open_for_page(tree / "large.png"), loaded)
    shown, whole = sitting.shown(ASKED), sitting.whole(ASKED)
    assert whole.pixels.shape == (1440, 1440, 3) and shown.pixels.shape == (SHOWN, SHOWN, 3)
    assert shown.faces[0].after == whole.faces[0].after
    expected = smaller(whole.pixels, SHOWN)[0].astype(int)
    changed = np.abs(expected - sitting.photo.shown.pixels).mean()
    assert np.abs(shown.pixels - expected).mean() < changed / 4


def test_nothing_asked_for_is_the_photograph(sitting: Sitting, pixels: np.ndarray):
    done = sitting.whole(None)
    assert np.array_equal(done.pixels, pixels) and not done.faces
    assert line(done, None).startswith("Move a dot")


def test_the_face_of_a_number_is_redirected_and_no_other(sitting: Sitting):
    assert sitting.shown(ASKED, 1).faces and not sitting.shown(ASKED, 2).faces


def test_the_table_has_asked_for_beside_measured_angles(sitting: Sitting):
    rows = table(sitting, sitting.shown(Edit(gaze=(5, 15)))).splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in cells] == ["gaze", "head"] and [row[2] for row in cells] == ["5, 15", "kept"]
    for row in cells:
        assert all(len(cell.split(", ")) == 2 or cell == "-" for cell in row[3:])


@pytest.mark.parametrize("shape", [(300, 501), (2000, 1999)])
def test_a_smaller_copy_keeps_places(shape: tuple[int, int]):
    picture = np.zeros((*shape, 3), np.uint8)
    copy, to_copy = smaller(picture, 400, multiple=2)
    assert max(copy.shape) <= 402 and copy.shape[0] % 2 == copy.shape[1] % 2 == 0
    for corner, expected in (
        ((-0.5, -0.5), (-0.5, -0.5)),
        ((shape[1] - 0.5, shape[0] - 0.5), np.array(copy.shape[1::-1]) - 0.5),
    ):
        assert (to_copy @ (*corner, 1))[:2] == pytest.approx(expected)


@pytest.mark.parametrize("what", ["gaze", "head", "both"])
def test_a_walk_begins_at_the_photograph_and_goes_to_both_sides(sitting: Sitting, pixels: np.ndarray, what):
    frames = list(walk_frames(sitting, what, frames=8))
    assert len(frames) == 8 and np.array_equal(frames[0], pixels)
    assert what == "gaze" or not np.array_equal(frames[1], frames[3])  # an untrained flow turns no eyes
    expected = [[0, 0], [0, 20], [0, 0], [0, -20], [0, 0], [10, 0], [0, 0], [-10, 0]]
    assert np.abs(walk_angles(8) - expected).max() < 1e-9


def test_mistakes_get_one_sentence_without_the_servers_folders(tree: Path, monkeypatch: pytest.MonkeyPatch):
    write_image(tree / "grey.png", np.full((200, 200, 3), 128, np.uint8))
    write_image(tree / "huge.png", np.zeros((8000, 8000, 3), np.uint8))
    (tree / "text.jpg").write_text("not a picture")
    (tree / "photo.heic").write_bytes(b"0000")
    for name, message in (
        ("text.jpg", "Image cannot be read"),
        ("huge.png", "This photograph has 64 megapixels, the page takes 60. Make it smaller, or use"),
        ("grey.png", "No face found in it"),
        ("photo.heic", "Format cannot be read (save it as JPEG or PNG)"),
    ):
        with pytest.raises(UserError) as told:
            open_for_page(tree / name)
        assert message in str(told.value) and str(tree) not in str(told.value)


def test_redirectors_of_photographs_below_a_folder_are_offered_the_named_one_first(
    tree: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, content in (("gan", '{"redirector": "redirtrans-gan"}'), ("estimator", "{}"), ("torn", "{")):
        shutil.copytree(tree / "st-ed", tree / name)
        (tree / name / "config.json").write_text(content)
    os.utime(tree / "redirtrans" / "config.json", (2e9, 2e9))
    monkeypatch.setattr(choices_room, "OURS", tree / "st-ed/checkpoints/3.pt")
    names = [choice.name for choice in find_choices(tree, tree / "st-ed")]
    assert names == [str(tree / "st-ed"), "photographs (comes along)", "redirtrans", "st-ed-flow"]


def test_no_redirector_no_gradio_and_a_torn_checkpoint_get_a_sentence(tree: Path, monkeypatch, capsys):
    monkeypatch.setattr(choices_room, "OURS", tree / "none.pt")
    assert demo.main(["--runs", str(tree / "none")]) == 2
    assert "none: no run of a redirector below it. Train one," in capsys.readouterr().err
    monkeypatch.setattr(page_command, "find_spec", lambda name: None)
    assert demo.main(["--runs", str(tree)]) == 2
    assert capsys.readouterr().err.endswith("install it: pip install -r requirements-page.txt\n")


FAULTS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), told.FULL),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."), told.FULL),
    (MemoryError(), told.FULL),
    (OSError(errno.ENOSPC, "No space left on device", "/srv/page"), "No space left on device."),
    (OSError("/srv/page/x.mp4: cannot be written"), "A file cannot be read or written."),
    (cv2.error("OpenCV(5.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"), told.FULL),
    (UserError("--face: found 3, expected 1."), "--face: found 3, expected 1."),
    (RuntimeError("shapes of the memory do not fit"), ""),
    (KeyError("gaze"), ""),
]


@pytest.mark.parametrize(("error", "sentence"), FAULTS, ids=str)
def test_what_the_machine_or_the_visitor_is_the_cause_of_is_a_sentence(error: Exception, sentence: str):
    assert told.fault(error) == sentence


# With gradio, without a browser.


@pytest.fixture
def events(tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("gradio")
    from core.page.events import Events

    (tmp_path / "files").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    return Events(find_choices(tree), "cpu")


@pytest.mark.parametrize(("error", "sentence"), FAULTS, ids=str)
def test_an_event_that_fails_says_why(
    error: Exception, sentence: str, events, tree: Path, monkeypatch: pytest.MonkeyPatch
):
    import gradio as gr

    from core.page import events as room

    def fail(*_: object) -> None:
        raise error

    sitting, _, _, _, _, gaze, head, *_ = events.open(str(tree / "in.png"), "st-ed-flow", None)
    for name in ("shown", "whole"):
        monkeypatch.setattr(Sitting, name, fail)
    for event in (room.show, room.write):
        with pytest.raises(gr.Error if sentence else type(error)) as raised:
            event(sitting, room.EVERY, gaze, head)
        assert not sentence or raised.value.message == sentence
    monkeypatch.setattr(events, "load", fail)
    if sentence:
        assert events.open(str(tree / "in.png"), "st-ed", None)[-1] == f"**{sentence}**"
    else:
        with pytest.raises(type(error)):
            events.open(str(tree / "in.png"), "st-ed", None)


def test_a_pad_that_moves_changes_the_picture_and_the_download(events, tree: Path):
    from core.page import events as room
    from core.page.pad import moved_to

    sitting, face, _, _, _, gaze, head, done, picture, text = events.open(str(tree / "in.png"), "st-ed-flow", None)
    assert text.startswith("480 x 480 pixels, 1 face found.") and not face["visible"] and not done.faces
    moved = moved_to(head, (0, 20))
    done, after, _ = room.show(sitting, room.EVERY, gaze, moved)
    assert done.faces[0].after["head"] == pytest.approx((0, 20), abs=1e-3) and not np.array_equal(after, picture)
    path = Path(room.write(sitting, room.EVERY, gaze, moved))
    assert path.name == "in-redirected.png" and np.array_equal(open_photo(path).pixels, done.pixels)
    _, both, _ = room.show(sitting, room.EVERY, gaze, moved, beside=True)
    assert both.shape[1] > 2 * after.shape[1]
    assert room.edit_of(room.look_into_the_camera(gaze), head) == Edit(gaze=(0, 0))


def test_a_mistake_on_the_page_is_a_line_and_closes_the_photograph(events, tree: Path):
    (tree / "text.jpg").write_text("not a picture")
    opened = events.open(str(tree / "text.jpg"), "st-ed", None)
    assert opened[0] is None and "Image cannot be read" in opened[-1] and opened[-2] is None
    assert events.open(None, "st-ed", None)[-1].startswith("Choose a photograph")


def test_another_redirector_sees_the_same_photograph_without_finding_its_faces_again(events, tree: Path, monkeypatch):
    first = events.open(str(tree / "in.png"), "st-ed-flow", None)[0]
    monkeypatch.setattr(sitting_room, "find", None)
    second = events.open(str(tree / "in.png"), "st-ed", first)[0]
    assert second.photo is first.photo and second.faces[0].back == "patch"


def test_grid_and_walk_are_files_that_say_that_they_were_redirected(events, tree: Path):
    from core.page import events as room

    sitting = events.open(str(tree / "in.png"), "st-ed-flow", None)[0]
    grid, walk = room.draw_grid(sitting, room.EVERY), room.film(sitting, room.EVERY, "gaze")
    assert b"redirected: a sheet of face 1" in Path(grid).read_bytes()
    with av.open(walk) as film:
        assert film.metadata["comment"].startswith("redirected: gaze") and film.streams.video[0].frames == 48


def test_the_page_reports_nothing_to_anybody(events, tree: Path, monkeypatch: pytest.MonkeyPatch):
    for name in page_command.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with page_command.page_settings() as folder:
        page = page_command.make_page(find_choices(tree), "cpu")
        assert page.blocks.analytics_enabled is False and os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not folder.exists()


# In a browser.


@contextmanager
def served(tree: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-u", str(ROOT / "demo.py"), "--runs", str(tree), "--port", port, "--device", "cpu"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and "Open http://127.0.0.1" in (line := process.stdout.readline())
            yield line.split()[1]
        finally:
            process.terminate()


def picture_after(page: Any, action: Any) -> str:
    """What the page shows once an action has changed it."""
    before = page.get_attribute("#picture img", "src")
    action()
    page.wait_for_function("before => document.querySelector('#picture img')?.src !== before", arg=before)
    return page.get_attribute("#picture img", "src")


@pytest.mark.slow
def test_in_a_browser_upload_move_see_and_download(tree: Path, pixels: np.ndarray, tmp_path: Path):
    pytest.importorskip("gradio", reason="pip install -r requirements-page.txt")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    write_image(tree / "grey.png", np.full((200, 200, 3), 128, np.uint8))
    write_image(tree / "huge.png", np.zeros((8000, 8000, 3), np.uint8))
    (tree / "text.png").write_text("not a picture")
    with served(tree) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#gaze svg")
        page.wait_for_timeout(1000)  # the page is drawn before it listens
        page.click("#example button.gallery-item")
        page.wait_for_selector("#picture img", timeout=60_000)
        page.click("#photo button[aria-label='Remove Image']")
        page.wait_for_selector("#message:has-text('Choose a photograph')")
        for name, message in (("text", "cannot be read"), ("huge", "64 megapixels"), ("grey", "No face found")):
            page.set_input_files("#photo input[type=file]", tree / f"{name}.png")
            page.wait_for_selector(f"#message:has-text('{message}')", timeout=60_000)
            page.click("#photo button[aria-label='Remove Image']")
            page.wait_for_selector("#message:has-text('Choose a photograph')")
        page.set_input_files("#photo input[type=file]", tree / "in.png")
        page.wait_for_selector("#picture img", timeout=60_000)
        box = page.locator("#head svg").bounding_box()
        picture_after(page, lambda: page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"]))
        picture_after(page, lambda: page.locator("#head .pad").press("ArrowRight"))
        page.wait_for_selector("#angles td:has-text('0, -28')")
        with page.expect_download() as download:
            page.click("#save")
        assert download.value.suggested_filename == "in-redirected.png"
        download.value.save_as(tmp_path / "saved.png")
        assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        browser.close()
    saved = open_photo(tmp_path / "saved.png").pixels
    assert saved.shape == pixels.shape and not np.array_equal(saved, pixels)
