"""Checks of what usually breaks a run, on every host; each finding comes with its fix."""
