"""Plan and tensors to results: dispatch, forward, backward, the loop, backends."""
