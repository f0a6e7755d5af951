"""The front doors of Sternpost: SMTP and HTTP."""
