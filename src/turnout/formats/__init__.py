"""An artifact becomes a Model; one file per format."""
