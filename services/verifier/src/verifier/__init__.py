"""What the chain says: transfers proved from it, and nothing else."""
