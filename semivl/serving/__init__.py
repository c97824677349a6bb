"""What is done with a finished model: choosing what to label next, and taking in what was drawn."""
