"""The edge: gRPC servicers of the public API and of agents. An API call writes intent and reads state, nothing more."""
