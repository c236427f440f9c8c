"""Orders, one file per family: each function checks the fields, does the work through agent.mongod, and fills the answer.

They are *ensure*, not *do*: after a crash the same order comes again and must end in the same state.
"""
