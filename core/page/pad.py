"""A pad to say a direction with: a square with a dot in it, which is where a face is to look or to point.

What it holds is {"at": [pitch, yaw], "start": [pitch, yaw], "moved": whether it was}, degrees. Up is up and left is
image left, as in the picture. It is dragged, or moved by the arrow keys; a double click puts it back to the start.
"""

from typing import Any

import gradio as gr

from core.redirection.edit import Degrees

REACH = 40  # degrees from the middle to the edge
SCALE = 90 / REACH  # units of the drawing a degree

_HTML = f"""
<div class="pad" role="application" tabindex="0" aria-label="${{name}}: pitch ${{value.at[0]}}, yaw ${{value.at[1]}}
degrees; move by the arrow keys">
  <div class="title">${{name}}</div>
  <svg viewBox="-100 -100 200 200">
    <rect x="-99" y="-99" width="198" height="198" rx="10" class="plate"/>
    <circle r="{SCALE * 10}" class="line"/><circle r="{SCALE * 20}" class="line"/>
    <circle r="{SCALE * 30}" class="line"/><circle r="{SCALE * 40}" class="line"/>
    <path d="M-99 0H99M0 -99V99" class="line"/>
    <text x="0" y="-86">up</text><text x="0" y="94">down</text>
    <text x="-96" y="-3" class="left">left</text><text x="96" y="-3" class="right">right</text>
    <circle class="start" r="6" cx="${{-value.start[1] * {SCALE}}}" cy="${{-value.start[0] * {SCALE}}}"/>
    <circle class="dot" r="8" cx="${{-value.at[1] * {SCALE}}}" cy="${{-value.at[0] * {SCALE}}}"/>
  </svg>
  <div class="angles">pitch ${{value.at[0]}}°, yaw ${{value.at[1]}}°</div>
</div>"""
_CSS = """
.pad { user-select: none; outline-offset: 4px; border-radius: 8px; }
.title { font-weight: 600; margin-bottom: 4px; }
.angles { font-variant-numeric: tabular-nums; text-align: center; font-size: 0.9em; margin-top: 4px; }
svg { width: 100%; display: block; cursor: crosshair; touch-action: none; }
.plate { fill: var(--background-fill-secondary); stroke: var(--border-color-primary); stroke-width: 1; }
.line { fill: none; stroke: var(--border-color-primary); stroke-width: 0.7; }
text { fill: var(--body-text-color-subdued); font-size: 12px; text-anchor: middle; }
text.left { text-anchor: start; } text.right { text-anchor: end; }
.start { fill: none; stroke: var(--body-text-color-subdued); stroke-width: 1.5; stroke-dasharray: 3 2; }
.dot { fill: var(--color-accent); stroke: var(--background-fill-primary); stroke-width: 2; }
"""
_JS = f"""
const reach = {REACH}, scale = {SCALE};
const put = (pitch, yaw, moved = true) => {{
  const within = (angle) => Math.max(-reach, Math.min(reach, Math.round(angle)));
  const at = [within(pitch), within(yaw)], was = props.value;
  if (at[0] === was.at[0] && at[1] === was.at[1] && moved === was.moved) return;
  props.value = {{ at: at, start: was.start, moved: moved }};
  trigger('input');
}};
const follow = (event) => {{
  const box = element.querySelector('svg').getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * 200 - 100, y = (event.clientY - box.top) / box.height * 200 - 100;
  put(-y / scale, -x / scale);
}};
let held = false;
element.addEventListener('pointerdown', (event) => {{
  if (!event.target.closest('svg')) return;
  held = true; element.setPointerCapture(event.pointerId); follow(event);
}});
element.addEventListener('pointermove', (event) => {{ if (held) follow(event); }});
for (const end of ['pointerup', 'pointercancel']) element.addEventListener(end, () => {{ held = false; }});
element.addEventListener('dblclick', () => put(...props.value.start, false));
element.addEventListener('keydown', (event) => {{
  const step = {{ ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, 1], ArrowRight: [0, -1] }}[event.key];
  if (!step) return;
  event.preventDefault();
  put(props.value.at[0] + step[0], props.value.at[1] + step[1]);
}});
"""


def make_pad(name: str, elem_id: str) -> gr.HTML:
    """Call it with a name that is its title; it triggers `input` whenever the user moves it."""
    return gr.HTML(
        value=put_at((0, 0)), name=name, html_template=_HTML, css_template=_CSS, js_on_load=_JS, elem_id=elem_id
    )


def put_at(start: Degrees) -> dict[str, Any]:
    """What a pad holds that starts at these angles, whole degrees within its reach."""
    angles = [max(-REACH, min(REACH, round(angle))) for angle in start]
    return {"at": angles, "start": angles, "moved": False}


def moved_to(value: dict[str, Any], angles: Degrees) -> dict[str, Any]:
    """What a pad holds after it was moved to these angles."""
    return {**value, "at": list(angles), "moved": True}


def asked_by(value: dict[str, Any]) -> Degrees | None:
    """The angles that a pad was moved to; None where it was not."""
    pitch, yaw = value["at"]
    return (float(pitch), float(yaw)) if value["moved"] else None
