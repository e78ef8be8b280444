"""Backend for servers that the user runs and that have OpenAI's chat completions interface."""
