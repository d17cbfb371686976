"""The catalogue of categories (立案条件 and their limits), and the standards that it follows."""
