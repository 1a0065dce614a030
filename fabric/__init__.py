"""What the machine is: chips, links, racks and the paths between chips. Knows no model and reads no user file."""
