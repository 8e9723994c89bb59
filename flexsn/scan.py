"""scan(core, inputs, states): the functional entry."""
