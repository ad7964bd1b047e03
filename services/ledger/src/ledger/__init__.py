"""The books of OSPay: accounts, entries that are never changed, balances."""
