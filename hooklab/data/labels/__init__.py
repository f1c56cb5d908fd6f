"""Classes and what is above them, and samples of them."""
