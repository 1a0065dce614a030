"""What the machine is: chips, links, racks, and the paths between chips."""
