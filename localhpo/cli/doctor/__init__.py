"""`localhpo doctor`: its checks, and which models fit into memory."""
