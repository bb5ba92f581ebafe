"""Files for a model that runs elsewhere: other formats, and Python files that need only Ultralytics."""
