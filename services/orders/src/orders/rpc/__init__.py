"""protobuf ↔ domain, and nothing else."""
