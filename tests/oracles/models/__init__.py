"""The same small models for every server of the battery."""
