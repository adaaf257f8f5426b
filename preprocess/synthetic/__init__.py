"""The embedded data set: drawn faces with exact labels."""
