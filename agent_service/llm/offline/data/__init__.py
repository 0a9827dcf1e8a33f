"""Word lists and evidence of the offline model: data, no code."""
