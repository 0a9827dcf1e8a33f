"""The sub-agents: one declaration per file."""
