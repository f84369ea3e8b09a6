"""Shipped conformance suites and fakes."""
