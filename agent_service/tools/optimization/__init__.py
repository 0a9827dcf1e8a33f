"""What would cost less, be faster or carry more: options simulated over the user's own rows."""
