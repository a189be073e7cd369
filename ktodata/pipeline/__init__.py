"""From a recipe to a run folder: what calls the stages, and what people do with a run."""
