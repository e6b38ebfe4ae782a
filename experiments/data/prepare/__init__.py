"""Download and write data sets, so that training needs no network."""
