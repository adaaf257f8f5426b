"""A module a data set: from its official download to a file of the ST-ED layout."""
