"""What torch.compile and torch.export see of a scan: two operators, and what a graph knows of a call."""
