"""The language model: its forward pass, faster ways through it, and what is kept of it."""
