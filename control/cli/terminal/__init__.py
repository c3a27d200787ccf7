"""What people see in a terminal: tables, the live view, numbers, text that any terminal takes."""
