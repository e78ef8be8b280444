"""What a model folder says of itself, read from its own files: nothing in it is run or loaded."""
