"""One cited pure function for each measure."""
