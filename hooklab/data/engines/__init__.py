"""Work in parts, shared by several processes or machines."""
