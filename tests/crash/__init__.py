"""What is left when processes die: everything acknowledged, and nothing done twice."""
