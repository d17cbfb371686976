"""Cases that others hand on: hotline orders, sheets of them, what staff find."""
