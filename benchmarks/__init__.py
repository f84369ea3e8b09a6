"""Turnout and its peers side by side: the same models, one load generator, one core for each server."""
