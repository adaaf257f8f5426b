"""Redirected data, and the experiment that asks what they are worth."""
