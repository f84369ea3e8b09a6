"""Virtualenvs for models that bring requirements: built once, shared, kept apart from the server's own packages."""
