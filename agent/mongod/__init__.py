"""Everything that is done to mongod. Knows no protobuf: plain arguments in, plain values or NodeFailure out."""
