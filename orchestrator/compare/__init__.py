"""From pairs to statistics, where the shards lie."""
