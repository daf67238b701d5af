"""What clients may have this process hold: connections, messages on their way, memory."""
