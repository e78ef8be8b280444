"""What sharing memory between trials and the model's server is worth, in simulated time."""
