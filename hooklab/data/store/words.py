"""The words by which two stores are compared; here so that the command line knows them without loading anything."""

ALIGNMENTS = ("token", "last", "mean")
METRICS = ("cosine", "l2", "cka", "rsa")
