"""What a core reads from outside: found, guarded, put back, registered, copied."""
