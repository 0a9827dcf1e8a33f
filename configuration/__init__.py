"""How both processes read their settings; what the settings are, each of them says itself. Imports nothing of ours."""
