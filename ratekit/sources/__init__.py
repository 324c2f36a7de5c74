"""Where rows come from: the bundled reviews, the public datasets, any local file, any hub id."""
