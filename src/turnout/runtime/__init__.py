"""Where predict runs and how requests become batches."""
