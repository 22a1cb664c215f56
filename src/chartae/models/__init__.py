"""Models made of parts, and the recipes that name the parts."""
