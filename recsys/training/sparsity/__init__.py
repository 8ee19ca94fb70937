"""Dynamic sparse learning: what a training run keeps of its model, and how that changes as it learns."""
