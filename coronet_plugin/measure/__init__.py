"""What a generator costs on this machine: time, memory, and where they go."""
