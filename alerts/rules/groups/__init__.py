"""One module a group of rules; each exports one or more `Group` objects."""
