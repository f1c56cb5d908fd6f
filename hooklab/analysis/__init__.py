"""Analyses over runs of specs: each is a function of a model that gives `Scores`."""
