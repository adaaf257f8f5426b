"""Pictures into the page and out of it."""

from base64 import b64encode
from typing import Any

import cv2
import gradio as gr
from gradio.data_classes import ImageData
from numpy import ndarray

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]


def photo_input(**options: Any) -> gr.Image:
    """An image that nobody opens before we do: what cannot be opened gets our sentence, what can keeps its metadata.

    Its value is the path of the file.
    """
    image = gr.Image(**options)  # no subclass: gradio would write a file of types beside it
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def shown_picture(**options: Any) -> gr.Image:
    """An image (H, W, 3) uint8 RGB that goes to the browser as it is made, without a file in between."""
    image = gr.Image(interactive=False, **options)
    image.postprocess = _in_the_answer
    return image


def _in_the_answer(pixels: ndarray | None) -> ImageData | None:
    if pixels is None:
        return None
    _, jpeg = cv2.imencode(".jpg", pixels[..., ::-1], JPEG)
    return ImageData(url=f"data:image/jpeg;base64,{b64encode(jpeg.tobytes()).decode()}")
