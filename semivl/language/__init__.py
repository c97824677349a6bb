"""Class names, definitions and captions, as text and as embeddings."""
