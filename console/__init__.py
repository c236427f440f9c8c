"""The control layer: web console, command line and Python client. It knows the product by its public gRPC API only."""
