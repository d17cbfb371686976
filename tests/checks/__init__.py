"""Checks of the code that no linter has; `make check` runs them."""
