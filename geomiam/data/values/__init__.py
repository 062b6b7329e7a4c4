"""Values as files have them: missing values, packing, attributes and labels."""
