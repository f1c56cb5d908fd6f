"""What `hooklab.bench.profiler` is made of: the measurement, the names of parts, and the picture."""
