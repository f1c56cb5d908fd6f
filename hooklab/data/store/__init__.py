"""Activations of many examples on the disk: written shard by shard, read as mapped files."""
