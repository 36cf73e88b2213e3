"""Folders that other tools dumped, as one side of a comparison: each tensor is read where it lies."""
