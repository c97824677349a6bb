"""From a finished model and a snapshot to scores: sliding window, confusion, per-image counts, the report."""
