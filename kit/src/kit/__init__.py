"""Process plumbing shared by the services. Nothing in here knows an order, a chain or a book."""
