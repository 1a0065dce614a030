"""How rows choose experts, and what slots for the worst choice cost over what rows choose in the mean."""
