"""What helps whoever reads a new case: suggestions, likely duplicates, labels to learn from."""
