"""What a trained model is asked beyond its held-out rows."""
