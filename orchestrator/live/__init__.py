"""A run while its ranks run: what they have labelled, compared as soon as it is there, and where they stand."""
