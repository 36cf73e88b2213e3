"""From the shards' indices to pairs of regions. Pure: no Ray, no files."""
