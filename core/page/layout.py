"""What the page shows, and which event belongs to what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from core.page import events, told
from core.page.choices import Choice
from core.page.pad import make_pad
from core.page.pictures import photo_input, shown_picture

TITLE = "Redirect where a face looks"
CONSENT = (
    "Redirect pictures of people who agreed to it, and say to those who see the result that it was made. What you "
    "download says so in its metadata. Pictures stay on the computer that this page runs on, until it is stopped."
)
DOWNLOAD = "() => document.querySelector('a#download, #download a, button#download, #download button').click()"
LARGEST_FILE = "100mb"
CSS = """
.gradio-container { max-width: 1240px !important; }
#title h1 { margin-bottom: 0; }
#message { min-height: 1.6em; }
#angles table { width: 100%; font-variant-numeric: tabular-nums; }
#angles th, #angles td { padding: 4px 10px; font-size: 0.9em; border-color: var(--border-color-primary); }
#consent { color: var(--body-text-color-subdued); font-size: 0.9em; }
"""


class Page:
    """The components and their events. choices: redirectors, the first is the one to begin with."""

    def __init__(self, choices: Sequence[Choice], device: str, examples: Sequence[Path]) -> None:
        self.events = events.Events(choices, device)
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            self.sitting, self.done = gr.State(None), gr.State(None)
            gr.Markdown(f"# {TITLE}", elem_id="title")
            with gr.Row():
                with gr.Column(scale=5, min_width=380):
                    self._lay_out_controls([choice.name for choice in choices], examples)
                with gr.Column(scale=8, min_width=440):
                    self._lay_out_results()
            gr.Markdown(CONSENT, elem_id="consent")
            self._connect()

    def launch(self, host: str, port: int | None) -> str:
        """Begin to serve; the address. Raises OSError where the port is taken."""
        theme = gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        )
        _, address, _ = self.blocks.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, show_error=True,
            max_file_size=LARGEST_FILE, footer_links=[], theme=theme, css=CSS, enable_monitoring=False,
        )  # fmt: skip
        return address

    def _lay_out_controls(self, names: Sequence[str], examples: Sequence[Path]) -> None:
        sources: Any = ["upload", "webcam", "clipboard"]
        self.photo = photo_input(label="Photograph", sources=sources, height=200, elem_id="photo")
        # No gr.Examples: it builds the image anew, without what `photo_input` has changed of it.
        shown = [[str(path)] for path in examples]
        self.example = gr.Dataset(
            components=[self.photo], samples=shown, type="index", elem_id="example",
            label="Example (NASA, public domain)",
        )  # fmt: skip
        self.example.click(lambda number: shown[number][0], self.example, self.photo, api_visibility="private")
        self.choice = gr.Dropdown(list(names), value=names[0], label="Redirector", elem_id="redirector")
        self.face = gr.Radio([events.EVERY], value=events.EVERY, label="Face", visible=False, elem_id="face")
        with gr.Row():
            self.gaze, self.head = make_pad("Gaze", "gaze"), make_pad("Head", "head")
        with gr.Row():
            self.contact = gr.Button("Eye contact", size="md", elem_id="contact", min_width=80)
            self.reset = gr.Button("Back to the start", size="md", elem_id="reset", min_width=80)
        self.beside = gr.Checkbox(label="Side by side, with arrows as measured", elem_id="beside")

    def _lay_out_results(self) -> None:
        buttons: Any = ["download", "fullscreen"]
        self.message = gr.Markdown(events.BEGIN, elem_id="message")
        with gr.Tab("Picture"):
            self.picture = shown_picture(show_label=False, height=500, elem_id="picture", buttons=buttons[1:])
            self.table = gr.Markdown(told.EMPTY, elem_id="angles")
            self.save = gr.Button("Download at full size", variant="primary", interactive=False, elem_id="save")
            self.file = gr.DownloadButton(visible="hidden", elem_id="download")
        with gr.Tab("Grid"):
            gr.Markdown(f"Gaze and head, each from {events.GRID:g} degrees image left to {events.GRID:g} image right.")
            self.make_grid = gr.Button("Make the grid", elem_id="make_grid")
            self.grid = gr.Image(show_label=False, elem_id="grid", interactive=False, buttons=buttons)
        with gr.Tab("Walk"):
            gr.Markdown("A short video in which the face looks, or turns, to both sides, up and down, and comes back.")
            self.what = gr.Radio(["gaze", "head", "both"], value="both", show_label=False, elem_id="what")
            self.make_walk = gr.Button("Make the video", elem_id="make_walk")
            self.walk = gr.Video(show_label=False, height=500, autoplay=True, loop=True, elem_id="walk")

    def _connect(self) -> None:
        asked = [self.sitting, self.face, self.gaze, self.head]
        shown = [self.done, self.picture, self.message]
        begun = [self.gaze, self.head, *shown]
        opened = [self.sitting, self.face, self.save, self.grid, self.walk, *begun]
        options: dict[str, Any] = {
            "concurrency_id": "redirector", "concurrency_limit": 1, "api_visibility": "private",
        }  # fmt: skip
        quick: dict[str, Any] = {**options, "show_progress": "hidden", "trigger_mode": "always_last"}
        show: dict[str, Any] = {
            "fn": events.show, "inputs": [*asked, self.beside], "outputs": shown, **quick,
        }  # fmt: skip
        tell: dict[str, Any] = {
            "fn": events.tell, "inputs": [self.sitting, self.done], "outputs": self.table, **quick,
        }  # fmt: skip
        for event in (self.photo.change, self.choice.input):
            event(self.events.open, [self.photo, self.choice, self.sitting], opened, **options).then(**tell)
        for event in (self.face.input, self.reset.click):
            event(events.begin, [self.sitting, self.face], begun, **quick).then(**tell)
        for event in (self.gaze.input, self.head.input, self.beside.input):
            event(**show).then(**tell)
        self.contact.click(events.look_into_the_camera, self.gaze, self.gaze, **quick).then(**show).then(**tell)
        self.save.click(events.write, asked, self.file, **options).success(None, js=DOWNLOAD)
        self.make_grid.click(events.draw_grid, [self.sitting, self.face], self.grid, **options)
        self.make_walk.click(events.film, [self.sitting, self.face, self.what], self.walk, **options)
