"""What a command says on the terminal, and how it ends."""
