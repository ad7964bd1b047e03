"""The operations of the API, by family."""

from gateway.routes import chains, merchants, operations, orders, payments, reconciliation, refunds

# The most called first: paths are tried in this order, and a fixed path stands before one with a parameter.
OPERATIONS = (
    *orders.OPERATIONS,
    *payments.OPERATIONS,
    *refunds.OPERATIONS,
    *orders.BY_PATH,
    *reconciliation.OPERATIONS,
    *chains.OPERATIONS,
    *merchants.OPERATIONS,
    *operations.OPERATIONS,
)
