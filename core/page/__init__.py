"""The page of demo.py: a photograph, two pads for gaze and head, and what becomes of it."""
