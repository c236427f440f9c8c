"""Values and rules of the control plane. Standard library only: no wire, no database, no clock, no network."""
