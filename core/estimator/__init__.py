"""Gaze and head estimators: their training and their measurement."""
