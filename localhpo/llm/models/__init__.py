"""Description, checks, memory and registry of the language models on this machine."""
