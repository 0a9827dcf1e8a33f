"""Language models behind the engine's `AgentLoop` port."""
