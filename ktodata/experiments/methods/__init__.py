"""One function a method, from the same rows to a trained model."""
