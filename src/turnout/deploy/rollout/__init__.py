"""From one version to the next in steps that are judged: what is wanted, the pure decision, and its statistics."""
