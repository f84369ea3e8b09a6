"""Bytes become messages and back; one file per wire protocol; no sockets."""
