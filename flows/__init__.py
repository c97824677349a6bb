"""What Prefect runs: one file a flow. Orchestration only; the work is done by plain functions in semivl."""
