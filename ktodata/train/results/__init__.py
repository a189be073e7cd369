"""What a training leaves behind: metrics, telemetry, figures, files, a model card."""
