"""One function for each use case; each owns its transaction."""
