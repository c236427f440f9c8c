"""Agents, seen from the control plane: who they are (authority, enrolment), whether they live (sessions), what they are
told (commands). The identity of an agent is its certificate's, never a message's.
"""
