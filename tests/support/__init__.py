"""What tests of several packages share; one module per thing."""
