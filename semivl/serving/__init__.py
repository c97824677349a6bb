"""What is done with a finished model: predicting folders of photos, and answering requests for masks."""
