"""`model.verify()`: proof by arithmetic that every site of a model is what its name says."""
