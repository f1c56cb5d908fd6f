"""What remains of activations when they are not stored."""
