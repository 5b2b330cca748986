"""Many machines: batches go through Redis to workers, and come back over a share."""
