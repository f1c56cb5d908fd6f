"""Questions to a model, graded, over a grid of edits."""
