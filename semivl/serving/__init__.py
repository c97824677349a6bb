"""What is done with a finished model: prediction, answering requests, export, choosing what to label next."""
