"""What should be served, and the one function that builds the tree."""
