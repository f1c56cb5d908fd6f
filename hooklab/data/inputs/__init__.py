"""Examples from anything, in batches of like length."""
