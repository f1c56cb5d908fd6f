"""Running models under a plan: everything that needs no block of user code."""
