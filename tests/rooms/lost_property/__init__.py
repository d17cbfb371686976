"""A room that the product does not have, whole: what docs/adding-a-domain.md says is shown by it."""
