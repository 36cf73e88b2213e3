"""Tensors that other tools dumped: their files are read where they are."""
