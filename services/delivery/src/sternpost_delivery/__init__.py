"""The hands of Sternpost: one SMTP session at a time to the world."""
