"""From source folders to snapshots that can be trusted, and from snapshots to batches."""
