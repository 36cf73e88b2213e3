"""Bring the files of a run from its hosts to this one."""
