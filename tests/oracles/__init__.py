"""The same requests to Turnout and to the servers people know, and every difference accounted for."""
