"""What is run by hand: the bench of engines, the paper's shapes."""
