"""What is seen: metrics and the access log."""
