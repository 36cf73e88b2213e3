"""From statistics to verdicts. Pure: no Ray, no files."""
