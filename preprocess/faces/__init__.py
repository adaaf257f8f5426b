"""Faces in photographs: found by a detector, then measured at 478 landmarks, with networks that come along."""
