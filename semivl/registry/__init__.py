"""MLflow's side of the loop: runs, the packaged model, kept scores, promotion."""
