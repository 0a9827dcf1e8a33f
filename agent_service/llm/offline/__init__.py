"""The built-in model: rules over plain values. Only `model` knows pydantic-ai."""
