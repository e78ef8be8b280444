"""What Creators are compared on."""
