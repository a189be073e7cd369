"""Texts as vectors: made once and cached, clustered, searched for holes, laid out as a map."""
