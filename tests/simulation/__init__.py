"""A randomised life of the whole suite, and a model that says what must be true of it."""
