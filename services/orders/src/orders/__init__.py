"""Orders: who asks for money, what came in for it, and what became of it."""
