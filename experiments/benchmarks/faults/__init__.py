"""The fault test: training that is killed again and again ends as if it had not been."""
