"""Examples through a model, into a store, reducers and metrics."""
