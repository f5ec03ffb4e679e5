"""Arms, runs, statistics, reports, the command and the web app."""
