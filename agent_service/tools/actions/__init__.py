"""The tools of the actions agent: plans that are tracked, policies that are exported and applied."""
