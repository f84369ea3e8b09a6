"""How work comes in: HTTP, gRPC, the command line, the library."""
