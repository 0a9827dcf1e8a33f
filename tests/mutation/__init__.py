"""Mutants: each takes one promise of the product out of its source, and a named test must notice."""
