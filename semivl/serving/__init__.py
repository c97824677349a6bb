"""What is done with a finished model: prediction, export, choosing what to label next."""
