"""The command line and the Python client against the fake control plane, over real gRPC and TLS."""
