"""From a snapshot to a trained model: the loop, its checkpoints, and the model's form on disk."""
