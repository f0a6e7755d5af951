"""The sternpost command: run the platform on one machine, hand it mail, look where mail is."""
