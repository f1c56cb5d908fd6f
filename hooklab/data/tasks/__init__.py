"""Questions with answers: where they come from, what an answer is, how right it is. Nothing here runs a model."""
