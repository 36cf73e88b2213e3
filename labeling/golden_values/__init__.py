"""Golden's values in the actual process: read from a golden run's shards, and put into the modules of this one."""
