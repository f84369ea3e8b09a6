"""The tests, by part; what they share is imported by its full name."""
