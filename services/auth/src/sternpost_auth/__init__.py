"""Who is this, and whose mail may they send."""
