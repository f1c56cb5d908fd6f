"""`hooklab demo`: the shipped model taken apart in one go, as tables in the terminal and pictures on one page."""
