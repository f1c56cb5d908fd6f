"""What `hooklab.bench.hypothesis` is made of: samples, tests, effect sizes, corrections, and the result."""
