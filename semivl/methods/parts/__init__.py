"""What methods share, as functions: views, losses, guidance."""
