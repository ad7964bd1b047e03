"""OSPay on one machine: embedded PostgreSQL, NATS and dev chain, the supervisor, and the CLI."""
