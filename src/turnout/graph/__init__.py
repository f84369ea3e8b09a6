"""Servables made of servables: what guides a request to the version that should answer it."""
