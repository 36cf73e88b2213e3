"""A case: one module on a few tokens, in a folder that shows by itself what a report says of a label."""
